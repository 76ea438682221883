"""The two fixtures that a project needs: its schema, once, and a connection for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import asyncpg
import pytest

from orders import catalog, database, stock

from .gateway import FakeGateway

if TYPE_CHECKING:
    from dataflow.testing.tdd_support import TDDTestContext


@pytest.fixture(scope="session")
async def schema(tdd_database_url: str) -> None:
    """Build the schema and stock the shop. This is committed: every test starts from it."""
    connection = await asyncpg.connect(tdd_database_url)
    try:
        async with connection.transaction():
            # The run's own database is empty. One that TEST_DATABASE_URL names may have the shop from the last
            # run, or get it in this instant from another worker.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('the shop of the tests'))")
            if await connection.fetchval("SELECT to_regclass('orders') IS NULL"):
                await database.create_schema(connection)
                await stock_the_shop(connection)
    finally:
        await connection.close()


@pytest.fixture
def connection(schema: None, tdd_test_context: TDDTestContext) -> database.Connection:
    """The connection of one test; what the test does with it is rolled back at its end."""
    return tdd_test_context.connection


@pytest.fixture
async def other_connection(schema: None, tdd_database_url: str) -> AsyncIterator[database.Connection]:
    """Another user of the shop, who sees its stock but nothing of what the test does."""
    connection = await asyncpg.connect(tdd_database_url)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


async def stock_the_shop(connection: database.Connection) -> None:
    house = {"roast": "medium", "notes": ["nut", "cocoa"], "grams": 250}
    ethiopia = {"roast": "light", "notes": ["jasmine", "lemon"], "grams": 250}
    decaf = {"roast": "medium", "notes": ["cocoa"], "grams": 250, "decaf": True}
    await catalog.add_product(connection, "HOUSE", "House blend", 900, house)
    await catalog.add_product(connection, "ETHIOPIA", "Ethiopia Sidamo", 1400, ethiopia)
    await catalog.add_product(connection, "DECAF", "Decaf", 1100, decaf)
    await catalog.add_product(connection, "FILTERS", "100 paper filters", 450)
    await stock.receive(connection, "Roastery", "N-1", {"HOUSE": 10, "ETHIOPIA": 4})
    await stock.receive(connection, "Roastery", "N-2", {"HOUSE": 20, "DECAF": 3})
    await stock.receive(connection, "Paper mill", "4711", {"FILTERS": 50})
