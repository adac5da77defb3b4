"""The HTTP API beside the hot route, on Litestar: a file per resource. It gets the worker's services wired, and owns
none of their life.
"""

from typing import Any

import msgspec
from litestar import Litestar
from litestar.datastructures import State

from gateway.api import availability, health, metrics, openapi, orders, products, sales, schema, stock
from gateway.api.answers import answer_error, complete_headers
from gateway.api.guard import authorize
from gateway.services import Services

HANDLERS: list[Any] = [
    orders.place_order,
    orders.show_order,
    orders.list_orders,
    orders.cancel_order,
    products.show_product,
    products.put_product,
    products.change_product,
    products.list_products,
    stock.show_stock,
    stock.set_stock,
    stock.change_stock,
    stock.list_pinched_stock,
    availability.show_availability,
    sales.show_sale,
    sales.put_sale,
    sales.open_sale,
    sales.close_sale,
    sales.list_sales,
    sales.report_sale,
    health.live,
    health.ready,
    metrics.metrics,
    schema.schema_page,
    schema.schema_document,
    schema.schema_asset,
]


class Application(Litestar):
    """Routes by the path as it was sent and not by the decoded one: a SKU may have a slash, written %2F, and decoded it
    could not be told from one that separates. Percent-encoding is left to whoever reads a part of the path.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["path"] = scope["raw_path"].decode("latin-1")
        await super().__call__(scope, receive, send)


def create(services: Services) -> Application:
    """The application. Errors of any kind leave it as our problems."""
    application = Application(
        HANDLERS,
        state=State({"services": services}),
        guards=[authorize],
        exception_handlers={Exception: answer_error},
        before_send=[complete_headers],
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    application.state.document = msgspec.json.encode(openapi.build(application.routes, services.settings))
    return application
