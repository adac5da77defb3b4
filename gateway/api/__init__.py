"""The HTTP API beside the hot route, on Litestar: a file per resource. It gets the worker's services wired, and owns
none of their life.
"""

from typing import Any

import msgspec
from litestar import Litestar
from litestar.datastructures import State

from gateway.api import (
    asyncapi,
    availability,
    bulk,
    clients,
    health,
    metrics,
    movements,
    openapi,
    order_changes,
    orders,
    products,
    sales,
    schema,
    settings,
    stock,
)
from gateway.api.answers import answer_error, complete_headers
from gateway.api.guard import authorize
from gateway.services import Services

HANDLERS: list[Any] = [
    orders.place_order,
    orders.show_order,
    orders.list_orders,
    order_changes.pay_order,
    order_changes.cancel_order,
    bulk.place_orders_in_bulk,
    products.show_product,
    products.put_product,
    products.change_product,
    products.list_products,
    stock.show_stock,
    stock.set_stock,
    stock.change_stock,
    stock.list_pinched_stock,
    movements.adjust_stock,
    movements.list_movements,
    clients.show_client,
    clients.list_clients,
    clients.create_client,
    clients.change_client,
    clients.create_token,
    clients.revoke_token,
    availability.show_availability,
    sales.show_sale,
    sales.put_sale,
    sales.open_sale,
    sales.close_sale,
    sales.list_sales,
    sales.report_sale,
    settings.show_settings,
    settings.put_settings,
    settings.list_settings,
    settings.roll_back_settings,
    health.live,
    health.ready,
    metrics.metrics,
    schema.schema_page,
    schema.schema_document,
    schema.schema_asset,
    schema.events_page,
    schema.events_document,
    schema.event_schema,
]


class Application(Litestar):
    """Routes by the path as it was sent and not by the decoded one: a SKU may have a slash, written %2F, and decoded it
    could not be told from one that separates. Percent-encoding is left to whoever reads a part of the path.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["path"] = scope["raw_path"].decode("latin-1")
            if scope["method"] == "HEAD":
                await self._answer_head(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    async def _answer_head(self, scope: Any, receive: Any, send: Any) -> None:
        """What GET would answer, its length included, without the body."""

        async def send_head(message: Any) -> None:
            await send(message | {"body": b""} if message["type"] == "http.response.body" else message)

        scope["method"] = "GET"
        try:
            await super().__call__(scope, receive, send_head)
        finally:
            scope["method"] = "HEAD"  # Whoever has passed the request on says so in the log.


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
    application.state.methods = {route.path_format: route.methods for route in application.routes}
    application.state.document = msgspec.json.encode(openapi.build(application.routes, services.settings))
    nats, installation = services.settings.nats, services.settings.installation
    application.state.events = asyncapi.build(nats, f"/floodgate/{installation.name}")
    return application
