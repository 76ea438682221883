"""From a cart to goods over the counter: place, buy, cancel, collect."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import asyncpg

from . import payments, stock
from .database import Connection, transact
from .errors import Busy, EmptyCart, NotFound, PaymentDeclined, WrongStatus

CODE_ATTEMPTS = 5


@dataclass(frozen=True)
class Order:
    id: int
    number: int
    status: str
    pickup_code: str


def random_code() -> str:
    return f"{secrets.randbelow(10_000):04}"


async def place_order(
    connection: Connection, cart_id: int, *, new_code: Callable[[], str] = random_code
) -> Order:
    """Make the cart an order at today's prices and reserve its goods. The same cart gives the same order."""
    return await transact(connection, lambda: _place(connection, cart_id, new_code))


async def _place(connection: Connection, cart_id: int, new_code: Callable[[], str]) -> Order:
    # The lock makes a second checkout of this cart wait here, and then find the first one's order.
    if await connection.fetchval("SELECT id FROM carts WHERE id = $1 FOR UPDATE", cart_id) is None:
        raise NotFound(f"cart {cart_id}")
    placed = await connection.fetchrow(
        "SELECT id, number, status, pickup_code FROM orders WHERE cart_id = $1", cart_id
    )
    if placed is not None:
        return Order(**placed)

    order = await _insert_order(connection, cart_id, new_code)
    lines = await connection.fetch(
        """
        INSERT INTO order_lines (order_id, product_id, quantity, unit_price_cents)
        SELECT $1, product_id, quantity, price_cents
        FROM cart_items JOIN products ON products.id = product_id WHERE cart_id = $2
        RETURNING product_id, quantity
        """,
        order.id,
        cart_id,
    )
    if not lines:
        raise EmptyCart(f"cart {cart_id}")
    # Everybody reserves in the same order, so that two checkouts seldom wait for each other.
    for line in sorted(lines, key=itemgetter("product_id")):
        await stock.reserve(connection, order.id, line["product_id"], line["quantity"])
    await connection.execute("UPDATE carts SET checked_out_at = now() WHERE id = $1", cart_id)
    return order


async def _insert_order(connection: Connection, cart_id: int, new_code: Callable[[], str]) -> Order:
    """Try codes until one is free. Each try has a savepoint: a taken code must not end the checkout."""
    for _ in range(CODE_ATTEMPTS):
        try:
            async with connection.transaction():
                row = await connection.fetchrow(
                    """
                    INSERT INTO orders (customer_id, cart_id, pickup_code)
                    SELECT customer_id, id, $2 FROM carts WHERE id = $1
                    RETURNING id, number, status, pickup_code
                    """,
                    cart_id,
                    new_code(),
                )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "orders_pickup_code":
                raise
        else:
            assert row is not None
            return Order(**row)
    raise Busy(f"no free pickup code in {CODE_ATTEMPTS} attempts")


async def buy(connection: Connection, cart_id: int, gateway: payments.Gateway, *, key: str) -> Order:
    """Place the order and pay for it; when the payment is declined, the goods are for sale again."""
    order = await place_order(connection, cart_id)
    try:
        await payments.pay(connection, order.id, gateway, key=key)
    except PaymentDeclined:
        await cancel_order(connection, order.id)
        raise
    return await find_order(connection, order.id)


async def find_order(connection: Connection, order_id: int) -> Order:
    row = await connection.fetchrow("SELECT id, number, status, pickup_code FROM orders WHERE id = $1", order_id)
    if row is None:
        raise NotFound(f"order {order_id}")
    return Order(**row)


async def cancel_order(connection: Connection, order_id: int) -> None:
    """Only an order that nobody has paid for; for the others see `payments.refund`."""
    async with connection.transaction():
        cancelled = await connection.execute(
            "UPDATE orders SET status = 'cancelled' WHERE id = $1 AND status = 'placed'", order_id
        )
        if cancelled == "UPDATE 0":
            raise WrongStatus(f"order {order_id} is not waiting for payment")
        await stock.release(connection, order_id)


async def collect_order(connection: Connection, pickup_code: str) -> Order:
    """Hand the goods over to whoever knows the code."""
    async with connection.transaction():
        row = await connection.fetchrow(
            """
            UPDATE orders SET status = 'collected' WHERE pickup_code = $1 AND status = 'paid'
            RETURNING id, number, status, pickup_code
            """,
            pickup_code,
        )
        if row is None:
            raise NotFound(f"paid order with code {pickup_code}")
        await stock.hand_over(connection, row["id"])
    return Order(**row)
