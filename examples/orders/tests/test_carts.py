from __future__ import annotations

import asyncpg
import pytest

from orders import carts, catalog, checkout
from orders.carts import CartLine
from orders.database import Connection
from orders.errors import NotFound

from .factories import a_cart, a_customer


async def test_a_customer_has_one_open_cart(connection: Connection) -> None:
    customer_id = await a_customer(connection)
    assert await carts.open_cart(connection, customer_id) == await carts.open_cart(connection, customer_id)


async def test_the_database_refuses_a_second_open_cart(connection: Connection) -> None:
    customer_id = await a_customer(connection)
    cart_id = await carts.open_cart(connection, customer_id)
    with pytest.raises(asyncpg.UniqueViolationError, match="carts_one_open"):
        async with connection.transaction():
            await connection.execute("INSERT INTO carts (customer_id) VALUES ($1)", customer_id)

    await carts.put(connection, cart_id, "HOUSE")
    assert await carts.contents(connection, cart_id) == [CartLine("HOUSE", 1, 900)]


async def test_a_new_cart_follows_a_checkout(connection: Connection) -> None:
    customer_id = await a_customer(connection)
    first = await carts.open_cart(connection, customer_id)
    await carts.put(connection, first, "HOUSE")
    await checkout.place_order(connection, first)

    second = await carts.open_cart(connection, customer_id)
    assert second != first
    assert await carts.contents(connection, second) == []


async def test_quantities_add_up(connection: Connection) -> None:
    cart_id = await a_cart(connection, {"HOUSE": 1, "FILTERS": 2})
    await carts.put(connection, cart_id, "HOUSE", 3)
    assert await carts.contents(connection, cart_id) == [
        CartLine("FILTERS", 2, 450),
        CartLine("HOUSE", 4, 900),
    ]


@pytest.mark.parametrize("more", [-7, 0, 98, 1000])
async def test_a_quantity_out_of_range_leaves_the_cart_alone(connection: Connection, more: int) -> None:
    cart_id = await a_cart(connection, {"HOUSE": 2})
    with pytest.raises(asyncpg.CheckViolationError, match="cart_items_quantity"):
        async with connection.transaction():
            await carts.put(connection, cart_id, "HOUSE", more)
    assert await carts.contents(connection, cart_id) == [CartLine("HOUSE", 2, 900)]


async def test_what_is_taken_out_is_gone(connection: Connection) -> None:
    cart_id = await a_cart(connection, {"HOUSE": 1, "FILTERS": 2})
    await carts.take_out(connection, cart_id, "HOUSE")
    assert await carts.contents(connection, cart_id) == [CartLine("FILTERS", 2, 450)]


async def test_a_withdrawn_product_cannot_be_put_in(connection: Connection) -> None:
    cart_id = await a_cart(connection, {})
    await catalog.withdraw(connection, "HOUSE")
    with pytest.raises(NotFound, match="HOUSE"):
        await carts.put(connection, cart_id, "HOUSE")


async def test_a_cart_that_was_checked_out_is_closed(connection: Connection) -> None:
    cart_id = await a_cart(connection, {"HOUSE": 1})
    await checkout.place_order(connection, cart_id)
    with pytest.raises(NotFound, match=f"open cart {cart_id}"):
        await carts.put(connection, cart_id, "FILTERS")
