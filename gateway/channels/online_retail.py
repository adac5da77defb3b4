"""The channel `online-retail`: the UCI "Online Retail" file, order lines of a British wholesaler, as orders.

The file is real and dirty, and stays so: repeated SKUs, gifts at price 0 and negative quantities go to the gateway as
they are, which says what it thinks of them. Nothing is repaired or rounded; only what is no order (cancellations,
corrections of bad debt) is left out, and counted. SKUs differ in case.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from core_ext.limits import MONEY_MAX, QUANTITY_MAX
from gateway.channels.feed import ChannelError, Feed, Goods, Sale

NAME = "online-retail"
CURRENCY = "GBP"
PENCE = 100  # of a pound
COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "UnitPrice", "CustomerID", "Country")
CANCELLATION = "C"  # the first letter of an invoice that takes another one back
ADJUSTMENT = "A"  # of one that writes off a bad debt
# Codes that stand on invoices without being goods: postage, carriage, fees, discounts, donations, corrections.
NOT_GOODS = frozenset({"POST", "DOT", "M", "m", "D", "S", "B", "C2", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS"})
VOUCHER_PREFIX = "gift_"


class Line(NamedTuple):
    """`unit_price` in pence; a Decimal only where the file names a fraction of a penny, which nobody can be charged."""

    sku: str
    title: str
    quantity: int
    unit_price: int | Decimal

    @property
    def sellable(self) -> bool:
        whole = isinstance(self.unit_price, int)
        return 1 <= self.quantity <= QUANTITY_MAX and whole and 0 <= self.unit_price <= MONEY_MAX


class Invoice(NamedTuple):
    number: str
    customer_id: str
    country: str
    lines: list[Line]


def read(file: bytes) -> Feed:
    """The orders of the file. Raises ChannelError for anything that is not this format."""
    invoices = list(_invoices(_rows(_text(file))))
    by_kind = Counter(invoice.number[0] for invoice in invoices)
    sales = [invoice for invoice in invoices if invoice.number[0] not in {CANCELLATION, ADJUSTMENT}]
    return Feed(
        [_sale(invoice) for invoice in sales], by_kind[CANCELLATION], by_kind[ADJUSTMENT], _goods(invoices, sales)
    )


def is_goods(sku: str) -> bool:
    return sku not in NOT_GOODS and not sku.startswith(VOUCHER_PREFIX)


def _text(file: bytes) -> str:
    # The set was exported from a spreadsheet of Western Windows; copies in UTF-8 are about as well.
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return file.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ChannelError("the file is neither UTF-8 nor Windows-1252 text")


def _rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise ChannelError(f"the header lacks {', '.join(missing)}; it has to name {', '.join(COLUMNS)}")
        for row in reader:
            if None in row or None in row.values():
                raise ChannelError(f"line {reader.line_num}: it has another number of cells than the header")
            yield reader.line_num, row
    except csv.Error as error:
        raise ChannelError(f"line {reader.line_num}: {error}") from error


def _invoices(rows: Iterable[tuple[int, dict[str, str]]]) -> Iterable[Invoice]:
    """Invoices in the order of their first lines."""
    found: dict[str, Invoice] = {}
    for at, row in rows:
        number = row["InvoiceNo"].strip()
        if not number.isascii() or not number.isprintable() or not number:
            raise ChannelError(f"line {at}: it has no InvoiceNo in visible ASCII")
        invoice = found.setdefault(number, Invoice(number, row["CustomerID"].strip(), row["Country"].strip(), []))
        invoice.lines.append(_line(at, row))
    return found.values()


def _line(at: int, row: dict[str, str]) -> Line:
    try:
        quantity, pence = int(row["Quantity"]), Decimal(row["UnitPrice"]) * PENCE
    except (ValueError, InvalidOperation) as error:
        raise ChannelError(f"line {at}: Quantity and UnitPrice have to be numbers") from error
    if not pence.is_finite():
        raise ChannelError(f"line {at}: UnitPrice has to be a number")
    price = int(pence) if pence == pence.to_integral_value() else pence
    return Line(row["StockCode"], row["Description"].strip(), quantity, price)


def _sale(invoice: Invoice) -> Sale:
    # The order of the fields is part of the key's fingerprint: a second run has to send the same bytes.
    order: dict[str, Any] = {"channel": NAME, "currency": CURRENCY}
    if invoice.customer_id:
        order["customer_id"] = invoice.customer_id
    order["external_id"] = invoice.number
    order["items"] = [
        {"sku": line.sku, "quantity": line.quantity, "unit_price": line.unit_price} for line in invoice.lines
    ]
    order["paid"] = {"reference": invoice.number}
    if invoice.country:
        order["metadata"] = {"country": invoice.country}
    units = sum(line.quantity for line in invoice.lines)
    value = int(sum(line.quantity * line.unit_price for line in invoice.lines))
    return Sale(f"{NAME}:{invoice.number}", order, len(invoice.lines), units, value)


def _goods(invoices: Iterable[Invoice], sales: Iterable[Invoice]) -> list[Goods]:
    """Every code of the file, in order of appearance; stock is what the sales that can be accepted ask for."""
    titles: dict[str, str] = {}
    prices: dict[str, Counter[int]] = {}
    for line in (line for invoice in invoices for line in invoice.lines):
        titles[line.sku] = titles.get(line.sku) or line.title
        counted = prices.setdefault(line.sku, Counter())
        if isinstance(line.unit_price, int) and line.unit_price > 0:
            counted[line.unit_price] += 1
    units = _units(sales)
    return [
        Goods(sku, title or sku, _usual(prices[sku]), CURRENCY, units[sku] if is_goods(sku) else None)
        for sku, title in titles.items()
    ]


def _usual(prices: Counter[int]) -> int:
    return prices.most_common(1)[0][0] if prices else 0


def _units(sales: Iterable[Invoice]) -> Counter[str]:
    wanted: Counter[str] = Counter()
    for invoice in sales:
        if all(line.sellable for line in invoice.lines):
            for line in invoice.lines:
                wanted[line.sku] += line.quantity
    return wanted
