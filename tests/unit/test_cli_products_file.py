"""Files of products: both forms give the same rows, and every mistake is named before anything is sent."""

import pytest

from gateway.cli.products_file import ProductsFileError, Row, read

PRODUCT = {"title": "Tea, green", "price": 1999, "currency": "CNY", "stocked": True, "active": True}


def test_read_csv_gives_products_and_units() -> None:
    rows = read(b'sku,title,price,currency,units\n00123,"Tea, green",1999,CNY,5\n')

    assert rows == [Row(2, "00123", PRODUCT, 5)]


def test_read_ndjson_gives_the_same_as_csv() -> None:
    rows = read(b'\n{"sku":"00123","title":"Tea, green","price":1999,"currency":"CNY","units":5}\n')

    assert rows == [Row(2, "00123", PRODUCT, 5)]


def test_read_empty_cells_are_defaults() -> None:
    (row,) = read(b"sku,title,price,currency,stocked,active,units\na,A,1,CNY,,,\n")

    assert (row.product["stocked"], row.product["active"], row.units) == (True, True, None)


def test_read_booleans_of_csv_are_read() -> None:
    (row,) = read(b"sku,title,price,currency,stocked,active\na,A,1,CNY,false,0\n")

    assert (row.product["stocked"], row.product["active"]) == (False, False)


def test_read_byte_order_mark_is_no_part_of_the_header() -> None:
    assert read("\ufeffsku,title,price,currency\na,A,1,CNY\n".encode())[0].sku == "a"


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        (b"sku,title,price,currency\na,A,cheap,CNY\n", "line 2: .*price"),
        (b"sku,title,price\na,A,1\n", "line 2: .*currency"),
        (b"sku,title,price,currency,colour\na,A,1,CNY,red\n", "line 2: .*colour"),
        (b"sku,title,price,currency\na,A,1,CNY,x\n", "line 2: it has more cells"),
        (b"sku,title,price,currency\na,A,1,CNY\na,A,2,CNY\n", "line 3: a stands in line 2 already"),
        (b'{"sku":"a"}\n', "line 1: .*title"),
        (b"{\n", "line 1: "),
        (b"sku,title,price,currency,units\na,A,1,CNY,-1\n", "line 2: .*units"),
        (b"", "it has no products"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_read_mistake_is_named_with_its_line(file: bytes, complaint: str) -> None:
    with pytest.raises(ProductsFileError, match=complaint):
        read(file)


def test_read_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ProductsFileError) as caught:
        read(b"sku,title,price,currency\na,A,x,CNY\nb,B,y,CNY\n")

    assert "line 2" in str(caught.value)
    assert "line 3" in str(caught.value)
