from core_ext.reference.pricing import price_order as price_order
