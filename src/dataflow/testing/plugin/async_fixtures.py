"""Fixtures that run in the event loop of the test that asks for them, whatever its scope."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from dataflow.testing.plugin.isolation import ROLLBACK
from dataflow.testing.plugin.loop_scope import follows_test_loop
from dataflow.testing.runtime import runtime

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

    from dataflow.testing.isolation.connection import TestConnection
    from dataflow.testing.isolation.context import TDDTestContext
    from dataflow.testing.isolation.physical import PhysicalConnection
    from dataflow.testing.layers.sqlalchemy import Engines
    from dataflow.testing.recipes.resources import TDDResourceManager
    from dataflow.testing.runtime import Runtime


@pytest_asyncio.fixture
@follows_test_loop
async def tdd_test_context() -> AsyncIterator[TDDTestContext]:
    """The test's context: ``.connection`` is inside a transaction that is rolled back after the test."""
    # The one fixture that every test pays for: asking for `request` or another fixture would cost as much as
    # the transaction. The runtime knows which test is at work.
    current = runtime()
    if current.isolation != ROLLBACK:
        assert current.database_of_test is not None, "the run asks for it before this fixture"
        context = await current.begin_committing_test(current.who(), current.database_of_test)
    else:
        context = await current.begin_test(current.who())
    try:
        yield context
    finally:
        await current.end_test(context)


@pytest_asyncio.fixture
@follows_test_loop
async def tdd_parallel_safe(tdd_test_context: TDDTestContext) -> tuple[TDDTestContext, str]:
    """The test's context, and a name that no other test has: ``parallel_`` and 12 hexadecimal digits."""
    return tdd_test_context, f"parallel_{secrets.token_hex(6)}"


@pytest_asyncio.fixture
@follows_test_loop
async def managed_connection(
    request: pytest.FixtureRequest, tdd_runtime: Runtime
) -> AsyncIterator[TestConnection]:
    """A connection of the pool in no transaction, taken back after the test. What it commits stays."""
    from dataflow.testing.isolation.context import TDDTestContext

    context = TDDTestContext(request.node.nodeid)
    connection = await tdd_runtime.manager.get_test_connection(context)
    try:
        yield connection
    finally:
        await tdd_runtime.manager.cleanup_test_connection(context)


@pytest_asyncio.fixture
@follows_test_loop
async def clean_connection(
    request: pytest.FixtureRequest, tdd_runtime: Runtime
) -> AsyncIterator[PhysicalConnection]:
    """A connection of its own beside the pool, opened for this test and closed after it. It commits."""
    from dataflow.testing.isolation.context import TDDTestContext

    connection = await tdd_runtime.manager.open_connection(TDDTestContext(request.node.nodeid))
    try:
        yield connection
    finally:
        await tdd_runtime.manager.close_connection(connection)


@pytest_asyncio.fixture
@follows_test_loop
async def fast_connection_pool(tdd_runtime: Runtime) -> asyncpg.Pool:
    """An `asyncpg.Pool` on the test database, one per event loop and closed with it. It commits."""
    return await tdd_runtime.manager.asyncpg_pool()


@pytest_asyncio.fixture
@follows_test_loop
async def resource_manager(tdd_runtime: Runtime) -> AsyncIterator[TDDResourceManager]:
    """Exclusive use of named resources; whatever the test still holds is released after it."""
    from dataflow.testing.recipes.resources import TDDResourceManager

    manager = TDDResourceManager()
    try:
        yield manager
    finally:
        await manager.release_all()


@pytest_asyncio.fixture
@follows_test_loop
async def tdd_async_engine(
    tdd_test_context: TDDTestContext,
    tdd_engine_options: dict[str, Any],
    _tdd_engines: Engines,
) -> AsyncIterator[AsyncEngine]:
    """SQLAlchemy's engine, with connections in the test's transaction; code under test may commit and roll back.

    Marked ``tdd(isolation="database")`` it is one to the database of the test, and commits.
    """
    from dataflow.testing.layers.sqlalchemy import retire

    context = tdd_test_context
    engine = _tdd_engines.asynchronous(context.connect, context.database, tdd_engine_options)
    try:
        yield engine
    finally:
        await engine.dispose()
        retire(engine.sync_engine)


@pytest_asyncio.fixture
@follows_test_loop
async def tdd_async_session(
    tdd_async_sessionmaker: async_sessionmaker[AsyncSession],
) -> AsyncIterator[AsyncSession]:
    """A session on `tdd_async_engine`, closed after the test."""
    async with tdd_async_sessionmaker() as session:
        yield session
