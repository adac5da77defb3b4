"""The golden events of orders, by both twins: what consumers have been sent never changes by a byte."""

import pytest

from core_ext.shapes import Change
from deploy.contracts.schemas import FOLDER
from gateway.api.event_examples import examples, order
from tests.ext.twins import Twin

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
AT_MS = order().created_at
CHANGES = {
    "order.created": Change(1, AT_MS, "created", "pending_payment", "client:7", traceparent=TRACE),
    "order.cancelled": Change(
        2, AT_MS + 60_000, "cancelled", "cancelled", "client:7", "pending_payment", "changed my mind", ("status",)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_event_json_has_the_golden_bytes(twin: Twin, name: str) -> None:
    encoded = twin.documents.event_json(order(), CHANGES[name], "/floodgate/local")
    assert encoded == (FOLDER / f"{name}.v1.golden.json").read_bytes()
    assert encoded == examples("/floodgate/local")[name].payload
