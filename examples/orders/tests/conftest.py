"""All that a project needs: how its tables and first rows come to be, and a connection for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from dataflow.testing.tdd_support import PythonFunction
from orders import catalog, database, stock

from .gateway import FakeGateway

if TYPE_CHECKING:
    from dataflow.testing.tdd_support import DatabaseLease, TDDTestContext

APPLICATION = Path(database.__file__).parent


async def the_shop(connection: asyncpg.Connection) -> None:
    """Every test starts from this. It is done once, and again when a file of the application has changed."""
    async with connection.transaction():
        await database.create_schema(connection)
        await stock_the_shop(connection)


@pytest.fixture(scope="session")
def tdd_schema() -> PythonFunction:
    return PythonFunction(the_shop, files=[APPLICATION])


@pytest.fixture
def connection(tdd_test_context: TDDTestContext) -> database.Connection:
    """The connection of one test; what the test does with it is rolled back at its end."""
    return tdd_test_context.connection


@pytest.fixture
async def other_connection(tdd_database_url: str) -> AsyncIterator[database.Connection]:
    """Another user of the shop, who sees its stock but nothing of what the test does."""
    connection = await asyncpg.connect(tdd_database_url)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.fixture
async def shop(tdd_database: DatabaseLease) -> AsyncIterator[asyncpg.Pool]:
    """Connections to a shop of the test's own, in which everybody sees what somebody commits."""
    async with asyncpg.create_pool(tdd_database.url, min_size=2, max_size=4) as pool:
        yield pool


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
