from __future__ import annotations

import asyncpg
import pytest

from orders import catalog, checkout, stock
from orders.database import Connection
from orders.errors import AlreadyReceived, NotFound, OutOfStock
from orders.stock import Lot

from .factories import a_cart, a_placed_order


@pytest.mark.parametrize(
    ("quantity", "picked"),
    [
        (0, []),
        (3, [Lot(1, 3)]),
        (5, [Lot(1, 5)]),
        (6, [Lot(1, 5), Lot(2, 1)]),
        (7, [Lot(1, 5), Lot(2, 2)]),
    ],
)
def test_the_first_lots_are_picked_first(quantity: int, picked: list[Lot]) -> None:
    assert stock.pick([Lot(1, 5), Lot(2, 2)], quantity) == picked


async def test_a_delivery_adds_to_what_is_there(connection: Connection) -> None:
    await stock.receive(connection, "Roastery", "N-3", {"ETHIOPIA": 6, "DECAF": 1})
    assert await stock.available(connection, "ETHIOPIA") == 10
    assert await stock.available(connection, "DECAF") == 4


async def test_a_delivery_is_booked_once(connection: Connection) -> None:
    await stock.receive(connection, "Roastery", "N-3", {"DECAF": 7})
    with pytest.raises(AlreadyReceived, match="Roastery, note N-3"):
        await stock.receive(connection, "Roastery", "N-3", {"DECAF": 7})
    assert await stock.available(connection, "DECAF") == 10


async def test_a_delivery_with_an_unknown_product_is_not_booked_at_all(connection: Connection) -> None:
    with pytest.raises(NotFound, match="TEA"):
        await stock.receive(connection, "Roastery", "N-3", {"DECAF": 7, "TEA": 1})
    assert await stock.available(connection, "DECAF") == 3

    # Nor is its note number used up.
    await stock.receive(connection, "Roastery", "N-3", {"DECAF": 7})
    assert await stock.available(connection, "DECAF") == 10


@pytest.mark.parametrize(("quantity", "from_each_lot"), [(4, [4]), (10, [10]), (12, [10, 2])])
async def test_goods_are_reserved_oldest_first(
    connection: Connection, quantity: int, from_each_lot: list[int]
) -> None:
    order = await a_placed_order(connection, {"HOUSE": quantity})
    assert await reserved(connection, order.id) == from_each_lot
    assert await stock.available(connection, "HOUSE") == 30 - quantity


async def test_a_lot_held_by_another_checkout_is_passed_over(
    connection: Connection, other_connection: Connection
) -> None:
    house = await catalog.product(connection, "HOUSE")
    await other_connection.execute(
        "SELECT FROM lots WHERE product_id = $1 ORDER BY id LIMIT 1 FOR UPDATE", house.id
    )
    await a_placed_order(connection, {"HOUSE": 5})
    by_lot = await connection.fetch("SELECT reserved FROM lots WHERE product_id = $1 ORDER BY id", house.id)
    assert [lot["reserved"] for lot in by_lot] == [0, 5]


async def test_more_than_there_is_cannot_be_reserved(connection: Connection) -> None:
    cart_id = await a_cart(connection, {"DECAF": 5})
    with pytest.raises(OutOfStock) as refused:
        await checkout.place_order(connection, cart_id)
    assert refused.value.missing == 2
    assert await stock.available(connection, "DECAF") == 3


async def test_released_goods_are_for_sale_again(connection: Connection) -> None:
    order = await a_placed_order(connection, {"HOUSE": 12})
    await stock.release(connection, order.id)
    assert await stock.available(connection, "HOUSE") == 30
    assert await reserved(connection, order.id) == []


async def test_goods_that_were_handed_over_are_gone(connection: Connection) -> None:
    order = await a_placed_order(connection, {"DECAF": 2})
    await stock.hand_over(connection, order.id)
    decaf = await catalog.product(connection, "DECAF")
    assert await connection.fetchval("SELECT on_hand FROM lots WHERE product_id = $1", decaf.id) == 1
    assert await stock.available(connection, "DECAF") == 1


async def test_a_lot_is_never_promised_twice(connection: Connection) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="lots_quantities"):
        async with connection.transaction():
            await connection.execute("UPDATE lots SET reserved = on_hand + 1")
    assert await stock.available(connection, "DECAF") == 3


async def reserved(connection: Connection, order_id: int) -> list[int]:
    rows = await connection.fetch(
        "SELECT quantity FROM reservations WHERE order_id = $1 ORDER BY lot_id", order_id
    )
    return [row["quantity"] for row in rows]
