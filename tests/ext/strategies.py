"""Arbitrary accepted orders and changes, for comparing the encoders. Texts hold any character that UTF-8 can."""

from hypothesis import strategies as st

from core_ext.limits import TIME_MS_MAX, TIME_MS_MIN
from core_ext.shapes import Change, Line, Order, ShipTo

text = st.text(max_size=20)
optional_text = st.none() | text
int4 = st.integers(-(2**31), 2**31 - 1)
int8 = st.integers(-(2**63), 2**63 - 1)
ids = st.binary(min_size=16, max_size=16)
times = st.integers(TIME_MS_MIN, TIME_MS_MAX)
optional_times = st.none() | times
raw_json = st.none() | st.sampled_from([b"{}", b"[]", '{"键":"值"}'.encode()])

lines = st.builds(
    Line,
    line=int4,
    sku=text,
    title=text,
    quantity=int4,
    unit_price=int8,
    amount=int8,
    stocked=st.booleans(),
    limited=st.booleans(),
)
ship_tos = st.builds(ShipTo, *[optional_text] * len(ShipTo.__struct_fields__))
orders = st.builds(
    Order,
    id=ids,
    client_id=int4,
    channel=text,
    currency=text,
    status=text,
    version=int4,
    total=int8,
    lines=st.lists(lines, max_size=3),
    created_at=times,
    customer_id=optional_text,
    external_id=optional_text,
    sale_id=optional_text,
    metadata=raw_json,
    adjustments=raw_json,
    placed_at=optional_times,
    paid_reference=optional_text,
    paid_at=optional_times,
    expires_at=optional_times,
    note=optional_text,
    ship_to=st.none() | ship_tos,
)
changes = st.builds(
    Change,
    version=st.integers(1, 2**31 - 1),
    at=times,
    event=text,
    status=text,
    actor=text,
    previous_status=optional_text,
    reason=optional_text,
    changed=st.lists(text, max_size=3).map(tuple),
    traceparent=optional_text,
)
