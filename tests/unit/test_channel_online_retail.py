"""The channel online-retail: what becomes of each kind of dirt in a small file, and the counts of the real one."""

import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.channels.feed import ChannelError, Feed, Goods
from gateway.channels.online_retail import is_goods, read

REAL = Path(__file__).parents[3] / "shared" / "data" / "online_retail.csv.gz"
HEADER = "InvoiceNo,StockCode,Description,Quantity,UnitPrice,CustomerID,Country"


def feed(*lines: str, encoding: str = "utf-8") -> Feed:
    return read("\n".join((HEADER, *lines, "")).encode(encoding))


def test_read_sales_invoice_becomes_paid_order_with_own_prices() -> None:
    found = feed(
        "536365,85123A,HEART HOLDER ,6,2.55,17850,United Kingdom", "536365,71053,LANTERN,2,3.39,17850,United Kingdom"
    )

    (sale,) = found.sales
    assert sale.key == "online-retail:536365"
    assert sale.order == {
        "channel": "online-retail",
        "currency": "GBP",
        "customer_id": "17850",
        "external_id": "536365",
        "items": [
            {"sku": "85123A", "quantity": 6, "unit_price": 255},
            {"sku": "71053", "quantity": 2, "unit_price": 339},
        ],
        "paid": {"reference": "536365"},
        "metadata": {"country": "United Kingdom"},
    }
    assert (sale.lines, sale.units, sale.value) == (2, 8, 6 * 255 + 2 * 339)


def test_read_invoice_without_customer_is_guest_order() -> None:
    assert "customer_id" not in feed("1,A,a,1,1,,").sales[0].order


def test_read_repeated_sku_stays_two_lines() -> None:
    items = feed("1,A,a,1,1,,", "1,A,a,2,1,,").sales[0].order["items"]

    assert [item["quantity"] for item in items] == [1, 2]


def test_read_lines_of_an_invoice_apart_make_one_order_in_first_place() -> None:
    sales = feed("1,A,a,1,1,,", "2,A,a,1,1,,", "1,B,b,1,1,,").sales

    assert [(sale.key, sale.lines) for sale in sales] == [("online-retail:1", 2), ("online-retail:2", 1)]


def test_read_cancellation_is_counted_and_no_order() -> None:
    found = feed("C1,A,a,-1,1,,", "C1,B,b,-1,1,,")

    assert (found.sales, found.cancellations) == ([], 1)


def test_read_bad_debt_is_counted_and_no_order() -> None:
    found = feed("A1,B,Adjust bad debt,1,11062.06,,")

    assert (found.sales, found.adjustments) == ([], 1)


def test_read_negative_quantity_is_sent_and_asks_for_no_stock() -> None:
    found = feed("1,A,a,5,1,,", "1,A,a,-2,1,,", "2,A,a,3,1,,")

    assert found.sales[0].order["items"][1]["quantity"] == -2
    assert found.goods == [Goods("A", "a", 100, "GBP", 3)]


def test_read_gift_has_price_zero_and_takes_stock() -> None:
    found = feed("1,A,a,5,0,,")

    assert found.sales[0].order["items"] == [{"sku": "A", "quantity": 5, "unit_price": 0}]
    assert found.goods == [Goods("A", "a", 0, "GBP", 5)]


def test_read_fraction_of_a_penny_is_neither_rounded_nor_given_stock() -> None:
    found = feed("1,A,a,5,0.001,,")

    assert found.sales[0].order["items"][0]["unit_price"] == Decimal("0.1")
    assert found.goods == [Goods("A", "a", 0, "GBP", 0)]


def test_read_price_of_product_is_most_frequent_non_zero_one() -> None:
    goods = feed("1,A,a,1,2,,", "2,A,a,1,3,,", "3,A,a,1,3,,", "4,A,a,1,0,,", "5,A,a,1,0,,", "6,A,a,1,0,,").goods

    assert goods[0].price == 300


def test_read_title_is_first_description_there_is() -> None:
    goods = feed("1,A,,1,1,,", "2,A, first ,1,1,,", "3,A,second,1,1,,", "4,B,,1,1,,").goods

    assert [entry.title for entry in goods] == ["first", "B"]


def test_read_skus_differ_in_case() -> None:
    assert [entry.sku for entry in feed("1,85099B,a,1,1,,", "1,85099b,a,1,1,,").goods] == ["85099B", "85099b"]


@pytest.mark.parametrize(
    "sku", ["POST", "DOT", "M", "m", "D", "S", "C2", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS", "gift_0001_40"]
)
def test_is_goods_of_charges_and_vouchers_is_false(sku: str) -> None:
    assert not is_goods(sku)


@pytest.mark.parametrize("sku", ["85123A", "DCGS0076", "post", "d"])
def test_is_goods_of_anything_else_is_true(sku: str) -> None:
    assert is_goods(sku)


def test_read_goods_that_are_none_have_no_stock() -> None:
    assert feed("1,POST,POSTAGE,3,18,,").goods == [Goods("POST", "POSTAGE", 1800, "GBP", None)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_read_pound_sign_in_either_encoding_is_text(encoding: str) -> None:
    assert feed("1,gift_1,Voucher £40.00,1,1,,", encoding=encoding).goods[0].title == "Voucher £40.00"


def test_read_same_file_twice_gives_same_bytes() -> None:
    line = "1,A,a,1,1,17850,France"

    assert repr(feed(line)) == repr(feed(line))


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        (b"a,b\n1,2\n", "the header lacks InvoiceNo"),
        (b"", "the header lacks InvoiceNo"),
        (f"{HEADER}\n1,A,a,1,1\n".encode(), "line 2: it has another number of cells"),
        (f"{HEADER}\n1,A,a,1,1,,,x\n".encode(), "line 2: it has another number of cells"),
        (f"{HEADER}\n1,A,a,one,1,,\n".encode(), "line 2: Quantity and UnitPrice"),
        (f"{HEADER}\n1,A,a,1,NaN,,\n".encode(), "line 2: UnitPrice"),
        (f"{HEADER}\n1,A,a,1,free,,\n".encode(), "line 2: Quantity and UnitPrice"),
        (f"{HEADER}\n,A,a,1,1,,\n".encode(), "line 2: it has no InvoiceNo"),
        (f'{HEADER}\n"1\n2",A,a,1,1,,\n'.encode(), "it has no InvoiceNo"),
        (f'{HEADER}\n1,"A\n'.encode(), "unexpected end of data"),
        (b"\x81\x8d", "neither UTF-8"),
    ],
)
def test_read_other_file_is_refused_with_its_line(file: bytes, complaint: str) -> None:
    with pytest.raises(ChannelError, match=complaint):
        read(file)


@pytest.fixture(scope="module")
def real() -> Feed:
    if not REAL.exists():
        print(f"ABSENT: {REAL}: the counts of the real file are not checked")
        pytest.skip(f"{REAL} is not here")
    return read(gzip.decompress(REAL.read_bytes()))


def test_read_real_file_gives_its_known_counts(real: Feed) -> None:
    sellable = [sale for sale in real.sales if all(item["quantity"] > 0 for item in sale.order["items"])]

    assert (len(real.sales), len(sellable), real.cancellations, real.adjustments) == (1958, 1873, 384, 0)
    assert sum(sale.lines for sale in sellable) == 49_054
    assert sum(sale.units for sale in sellable) == 438_702
    assert sum(sale.value for sale in sellable) == 95_607_071


def test_read_real_file_stock_is_what_its_sales_ask_for(real: Feed) -> None:
    counted = {entry.sku for entry in real.goods if entry.units is not None}
    wanted = sum(
        item["quantity"]
        for sale in real.sales
        if all(item["quantity"] > 0 for item in sale.order["items"])
        for item in sale.order["items"]
        if item["sku"] in counted
    )

    assert len(real.goods) == 2879
    assert sum(entry.units or 0 for entry in real.goods) == wanted
