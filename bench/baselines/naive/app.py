"""What people write today: FastAPI, a Lua script in Redis that takes the stock of an order, one INSERT for it.

Written as the tutorials on flash sales do (a Redis counter that a script checks and lowers in one step, a pool of
asyncpg made in `lifespan`, models of pydantic, `uvicorn[standard]`), and not crippled: commands are prepared and
registered once, prices are read at the start, lines and address stand in the order's row. It promises less than
Floodgate: no idempotency keys (it ignores the header), no tokens, no events, no encryption, no history. A crash between
the script and the INSERT strands the unit. It imports nothing of ours.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field
from redis.asyncio import Redis

# KEYS: the stock of each line's SKU; ARGV: its quantity. All or nothing.
TAKE_STOCK = """
for at, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') < tonumber(ARGV[at]) then return 0 end
end
for at, key in ipairs(KEYS) do redis.call('DECRBY', key, ARGV[at]) end
return 1
"""
INSERT = (
    "insert into orders (id, channel, currency, customer_id, items, note, ship_to, total, status, created_at)"
    " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
)
POOL_MIN, POOL_MAX = 10, 20  # connections to PostgreSQL of each worker
REDIS_MAX = 1000  # above this many requests at once it would refuse some


class Item(BaseModel):
    sku: str
    quantity: int = Field(gt=0)


class Address(BaseModel):
    name: str | None = None
    phone: str | None = None
    country: str | None = None
    province: str | None = None
    city: str | None = None
    district: str | None = None
    street: str | None = None
    postcode: str | None = None


class OrderIn(BaseModel):
    channel: str
    currency: str
    items: list[Item] = Field(min_length=1)
    customer_id: str | None = None
    note: str | None = None
    ship_to: Address | None = None


class Line(Item):
    title: str
    unit_price: int
    amount: int


class Order(BaseModel):
    order_id: uuid.UUID
    status: str
    channel: str
    currency: str
    customer_id: str | None
    total: int
    items: list[Line]
    created_at: datetime
    note: str | None
    ship_to: Address | None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.redis = Redis.from_url(os.environ["REDIS_URL"], max_connections=REDIS_MAX)
    app.state.take_stock = app.state.redis.register_script(TAKE_STOCK)
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=POOL_MIN, max_size=POOL_MAX)
    products = await app.state.pool.fetch("select sku, title, price from products")
    app.state.products = {row["sku"]: (row["title"], row["price"]) for row in products}
    yield
    await app.state.pool.close()
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/orders", status_code=201)
async def place_order(order_in: OrderIn) -> Order:
    order = price(order_in)
    keys, quantities = [f"stock:{line.sku}" for line in order.items], [line.quantity for line in order.items]
    if not await app.state.take_stock(keys=keys, args=quantities):
        raise HTTPException(status_code=409, detail="sold out")
    try:
        await insert(order)
    except Exception:
        for key, quantity in zip(keys, quantities, strict=True):
            await app.state.redis.incrby(key, quantity)
        raise
    return order


def price(order_in: OrderIn) -> Order:
    lines = []
    for item in order_in.items:
        product = app.state.products.get(item.sku)
        if product is None:
            raise HTTPException(status_code=422, detail=f"unknown product {item.sku}")
        title, unit_price = product
        amount = item.quantity * unit_price
        lines.append(Line(sku=item.sku, quantity=item.quantity, title=title, unit_price=unit_price, amount=amount))
    return Order(
        order_id=uuid.uuid4(),
        status="pending_payment",
        channel=order_in.channel,
        currency=order_in.currency,
        customer_id=order_in.customer_id,
        total=sum(line.amount for line in lines),
        items=lines,
        created_at=datetime.now(UTC),
        note=order_in.note,
        ship_to=order_in.ship_to,
    )


async def insert(order: Order) -> None:
    items = "[" + ",".join(line.model_dump_json() for line in order.items) + "]"
    await app.state.pool.execute(
        INSERT,
        order.order_id,
        order.channel,
        order.currency,
        order.customer_id,
        items,
        order.note,
        order.ship_to.model_dump_json(exclude_none=True) if order.ship_to else None,
        order.total,
        order.status,
        order.created_at,
    )
