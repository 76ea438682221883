"""Things that tests need and do not want to talk about."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from orders import carts, checkout, customers, payments
from orders.checkout import Order
from orders.database import Connection

from .gateway import FakeGateway

_numbers = count(1)


async def a_customer(connection: Connection) -> int:
    return await customers.register(connection, f"customer{next(_numbers)}@example.org", "Ada")


async def a_cart(connection: Connection, goods: Mapping[str, int]) -> int:
    cart_id = await carts.open_cart(connection, await a_customer(connection))
    for sku, quantity in goods.items():
        await carts.put(connection, cart_id, sku, quantity)
    return cart_id


async def a_placed_order(connection: Connection, goods: Mapping[str, int]) -> Order:
    return await checkout.place_order(connection, await a_cart(connection, goods))


async def a_paid_order(connection: Connection, goods: Mapping[str, int]) -> Order:
    order = await a_placed_order(connection, goods)
    await payments.pay(connection, order.id, FakeGateway(), key=f"payment-{next(_numbers)}")
    return await checkout.find_order(connection, order.id)
