"""The catalogue in memory: later versions win, and a limit of the rules stands where a product has none of its own."""

from typing import Any

import pytest

from gateway.catalogue import Catalogue, product_of


def row(sku: str, limit: int | None = None, version: int = 1) -> Any:
    return {
        "sku": sku,
        "title": "t",
        "price": 5,
        "currency": "CNY",
        "stocked": True,
        "active": True,
        "version": version,
        "limit": limit,
    }


def limits(catalogue: Catalogue) -> dict[str, int | None]:
    return {sku: product.limit for sku, product in catalogue.products.items()}


@pytest.fixture
def catalogue() -> Catalogue:
    """A product with a limit of its own and one without."""
    made = Catalogue()
    made.apply(1, [row("own", 7), row("none")])
    return made


def test_catalogue_without_rules_has_the_products_own_limits(catalogue: Catalogue) -> None:
    assert limits(catalogue) == {"own": 7, "none": None}


def test_catalogue_with_rules_limits_products_that_have_no_limit_of_their_own(catalogue: Catalogue) -> None:
    catalogue.apply_limits(lambda _: 2)
    assert limits(catalogue) == {"own": 7, "none": 2}


def test_catalogue_with_rules_limits_products_that_come_later(catalogue: Catalogue) -> None:
    catalogue.apply_limits({"later": 3, "put": 4}.get)
    catalogue.apply(2, [row("later"), row("other")])
    catalogue.put(product_of(row("put")))
    assert limits(catalogue) == {"own": 7, "none": None, "later": 3, "other": None, "put": 4}


def test_catalogue_with_changed_rules_forgets_the_former(catalogue: Catalogue) -> None:
    catalogue.apply_limits(lambda _: 2)
    catalogue.apply_limits(lambda _: None)
    assert limits(catalogue) == {"own": 7, "none": None}


def test_catalogue_product_that_gets_or_loses_its_own_limit_follows(catalogue: Catalogue) -> None:
    catalogue.apply_limits(lambda _: 2)
    catalogue.apply(2, [row("own", None, 2), row("none", 9, 2)])
    assert limits(catalogue) == {"own": 2, "none": 9}
    catalogue.apply_limits(lambda _: 3)
    assert limits(catalogue) == {"own": 3, "none": 9}


def test_catalogue_put_of_an_older_version_changes_nothing(catalogue: Catalogue) -> None:
    catalogue.apply(2, [row("own", 8, 3)])
    catalogue.put(product_of(row("own", 1, 2)))
    assert limits(catalogue)["own"] == 8
