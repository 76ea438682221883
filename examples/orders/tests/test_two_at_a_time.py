"""Two customers at a time: on connections of their own, which wait for each other and see what is committed."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from orders import checkout, outbox
from orders.errors import OutOfStock
from orders.outbox import Message

from .factories import a_cart, a_placed_order

FIRST_NUMBER = 1001


async def test_the_last_bag_is_sold_once(shop: asyncpg.Pool) -> None:
    async def buy() -> str:
        async with shop.acquire() as connection:
            cart_id = await a_cart(connection, {"DECAF": 2})
            try:
                return (await checkout.place_order(connection, cart_id)).status
            except OutOfStock:
                return "out of stock"

    assert sorted(await asyncio.gather(buy(), buy())) == ["out of stock", "placed"]


async def test_a_cart_becomes_one_order_however_often_somebody_clicks(shop: asyncpg.Pool) -> None:
    async def click() -> int:
        async with shop.acquire() as connection:
            return (await checkout.place_order(connection, cart_id)).id

    async with shop.acquire() as connection:
        cart_id = await a_cart(connection, {"HOUSE": 1})
    first, second = await asyncio.gather(click(), click())
    assert first == second
    assert await shop.fetchval("SELECT count(*) FROM orders") == 1


async def test_two_dispatchers_pass_over_what_the_other_one_is_sending(shop: asyncpg.Pool) -> None:
    async with shop.acquire() as one, shop.acquire() as other:
        first = await a_placed_order(one, {"HOUSE": 1})
        busy, finish = asyncio.Event(), asyncio.Event()
        sent: list[int] = []

        async def slowly(message: Message) -> None:
            busy.set()
            await finish.wait()
            sent.append(message.payload["number"])

        async def quickly(message: Message) -> None:
            sent.append(message.payload["number"])

        sending = asyncio.create_task(outbox.dispatch(one, slowly))
        await busy.wait()
        second = await a_placed_order(other, {"HOUSE": 1})
        assert await outbox.dispatch(other, quickly) == 1
        finish.set()
        assert await sending == 1
    assert sent == [second.number, first.number]


@pytest.mark.parametrize("attempt", [1, 2])
async def test_each_test_has_all_the_stock_and_the_first_number(shop: asyncpg.Pool, attempt: int) -> None:
    """What the one before sold is back, and so are the numbers that it drew."""
    async with shop.acquire() as connection:
        assert (await a_placed_order(connection, {"HOUSE": 30})).number == FIRST_NUMBER
        with pytest.raises(OutOfStock):
            await a_placed_order(connection, {"HOUSE": 1})
