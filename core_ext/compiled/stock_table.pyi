from core_ext.reference.stock_table import StockTable as StockTable
