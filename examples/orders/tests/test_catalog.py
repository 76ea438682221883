from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from orders import catalog
from orders.database import Connection
from orders.errors import NotFound


async def test_a_product_is_found_by_sku(connection: Connection) -> None:
    house = await catalog.product(connection, "HOUSE")
    assert (house.name, house.price_cents) == ("House blend", 900)


async def test_an_unknown_sku_is_not_found(connection: Connection) -> None:
    with pytest.raises(NotFound, match="TEA"):
        await catalog.product(connection, "TEA")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"roast": "light"}, ["ETHIOPIA"]),
        ({"notes": ["cocoa"]}, ["DECAF", "HOUSE"]),
        ({"notes": ["cocoa"], "decaf": True}, ["DECAF"]),
        ({"roast": "green"}, []),
        ({}, ["DECAF", "ETHIOPIA", "FILTERS", "HOUSE"]),
    ],
)
async def test_search_by_attributes(connection: Connection, wanted: dict[str, Any], found: list[str]) -> None:
    products = await catalog.search(connection, **wanted)
    assert [product.sku for product in products] == found


async def test_a_withdrawn_product_is_not_searched(connection: Connection) -> None:
    await catalog.withdraw(connection, "ETHIOPIA")
    assert await catalog.search(connection, roast="light") == []


async def test_a_price_changes(connection: Connection) -> None:
    await catalog.change_price(connection, "HOUSE", 950)
    assert (await catalog.product(connection, "HOUSE")).price_cents == 950


@pytest.mark.parametrize("price", [0, -1])
async def test_nothing_is_free(connection: Connection, price: int) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="price_cents"):
        async with connection.transaction():
            await catalog.change_price(connection, "HOUSE", price)
    assert (await catalog.product(connection, "HOUSE")).price_cents == 900


async def test_a_sku_is_used_once(connection: Connection) -> None:
    with pytest.raises(asyncpg.UniqueViolationError, match="products_sku_key"):
        async with connection.transaction():
            await catalog.add_product(connection, "HOUSE", "Another blend", 800)
    assert await catalog.add_product(connection, "HOUSE-2", "Another blend", 800)
