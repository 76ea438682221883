from __future__ import annotations

import asyncpg
import pytest

from orders import carts, catalog, checkout, stock
from orders.database import Connection
from orders.errors import Busy, EmptyCart, NotFound, OutOfStock, PaymentDeclined, WrongStatus

from .factories import a_cart, a_paid_order, a_placed_order
from .gateway import FakeGateway


async def test_an_order_keeps_the_price_it_was_placed_at(connection: Connection) -> None:
    order = await a_placed_order(connection, {"HOUSE": 2})
    await catalog.change_price(connection, "HOUSE", 1000)
    price = await connection.fetchval("SELECT unit_price_cents FROM order_lines WHERE order_id = $1", order.id)
    assert price == 900


async def test_placing_a_cart_twice_gives_the_same_order(connection: Connection) -> None:
    cart_id = await a_cart(connection, {"HOUSE": 2})
    first = await checkout.place_order(connection, cart_id)
    second = await checkout.place_order(connection, cart_id)
    assert first == second
    assert await stock.available(connection, "HOUSE") == 28


async def test_order_numbers_rise(connection: Connection) -> None:
    orders = [await a_placed_order(connection, {"FILTERS": 1}) for _ in range(3)]
    numbers = [order.number for order in orders]
    assert numbers == sorted(set(numbers))


async def test_an_empty_cart_is_not_an_order(connection: Connection) -> None:
    cart_id = await a_cart(connection, {})
    with pytest.raises(EmptyCart):
        await checkout.place_order(connection, cart_id)
    assert await connection.fetchval("SELECT count(*) FROM orders") == 0


async def test_a_checkout_that_fails_leaves_everything_as_it_was(connection: Connection) -> None:
    cart_id = await a_cart(connection, {"HOUSE": 2, "DECAF": 4})
    with pytest.raises(OutOfStock):
        await checkout.place_order(connection, cart_id)
    assert await connection.fetchval("SELECT count(*) FROM orders") == 0
    assert await stock.available(connection, "HOUSE") == 30

    # The cart is still open, and can be changed until it works.
    await carts.take_out(connection, cart_id, "DECAF")
    assert (await checkout.place_order(connection, cart_id)).status == "placed"


async def test_a_pickup_code_that_is_taken_is_not_given_again(connection: Connection) -> None:
    codes = iter(["0007", "0007", "0007", "4711"])
    first = await checkout.place_order(
        connection, await a_cart(connection, {"HOUSE": 1}), new_code=lambda: next(codes)
    )
    second = await checkout.place_order(
        connection, await a_cart(connection, {"HOUSE": 1}), new_code=lambda: next(codes)
    )
    assert (first.pickup_code, second.pickup_code) == ("0007", "4711")


async def test_a_checkout_gives_up_when_no_pickup_code_is_free(connection: Connection) -> None:
    await checkout.place_order(connection, await a_cart(connection, {"HOUSE": 1}), new_code=lambda: "0007")
    cart_id = await a_cart(connection, {"HOUSE": 1})
    with pytest.raises(Busy, match="no free pickup code"):
        await checkout.place_order(connection, cart_id, new_code=lambda: "0007")
    assert await stock.available(connection, "HOUSE") == 29


async def test_a_pickup_code_is_free_again_after_its_order_has_left(connection: Connection) -> None:
    first = await a_paid_order(connection, {"HOUSE": 1})
    await checkout.collect_order(connection, first.pickup_code)
    second = await checkout.place_order(
        connection, await a_cart(connection, {"HOUSE": 1}), new_code=lambda: first.pickup_code
    )
    assert second.pickup_code == first.pickup_code


@pytest.mark.parametrize("code", ["", "123", "12345", "12a4"])
async def test_a_pickup_code_has_four_digits(connection: Connection, code: str) -> None:
    cart_id = await a_cart(connection, {"HOUSE": 1})
    with pytest.raises(asyncpg.CheckViolationError, match="pickup_code"):
        await checkout.place_order(connection, cart_id, new_code=lambda: code)


async def test_a_cancelled_order_gives_its_goods_back(connection: Connection) -> None:
    order = await a_placed_order(connection, {"HOUSE": 12})
    await checkout.cancel_order(connection, order.id)
    assert (await checkout.find_order(connection, order.id)).status == "cancelled"
    assert await stock.available(connection, "HOUSE") == 30


async def test_an_order_that_is_paid_cannot_be_cancelled(connection: Connection) -> None:
    order = await a_paid_order(connection, {"HOUSE": 1})
    with pytest.raises(WrongStatus):
        await checkout.cancel_order(connection, order.id)
    assert await stock.available(connection, "HOUSE") == 29


async def test_the_pickup_code_of_a_paid_order_gets_the_goods(connection: Connection) -> None:
    order = await a_paid_order(connection, {"HOUSE": 3})
    collected = await checkout.collect_order(connection, order.pickup_code)
    assert (collected.id, collected.status) == (order.id, "collected")
    assert await connection.fetchval("SELECT count(*) FROM reservations") == 0


async def test_goods_that_nobody_paid_for_stay_in_the_shop(connection: Connection) -> None:
    order = await a_placed_order(connection, {"HOUSE": 3})
    with pytest.raises(NotFound):
        await checkout.collect_order(connection, order.pickup_code)
    assert await connection.fetchval("SELECT sum(reserved) FROM lots") == 3


async def test_the_database_knows_no_other_status(connection: Connection) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    with pytest.raises(asyncpg.InvalidTextRepresentationError, match="lost"):
        async with connection.transaction():
            await connection.execute("UPDATE orders SET status = 'lost'")
    assert (await checkout.find_order(connection, order.id)).status == "placed"


async def test_buying_places_and_pays(connection: Connection, gateway: FakeGateway) -> None:
    cart_id = await a_cart(connection, {"HOUSE": 2, "FILTERS": 1})
    order = await checkout.buy(connection, cart_id, gateway, key="k1")
    assert order.status == "paid"
    assert gateway.charged == {"k1": 2 * 900 + 450}


async def test_a_declined_payment_puts_the_goods_back(connection: Connection, gateway: FakeGateway) -> None:
    gateway.declines = True
    cart_id = await a_cart(connection, {"HOUSE": 2})
    with pytest.raises(PaymentDeclined, match="insufficient funds"):
        await checkout.buy(connection, cart_id, gateway, key="k1")
    assert (await checkout.place_order(connection, cart_id)).status == "cancelled"
    assert await stock.available(connection, "HOUSE") == 30
