"""The plain pool for code under test: its waits end, its holders are known, its connections are counted."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from tests.integration.isolation.conftest import ask

from dataflow.testing.errors import MissingDatabase, PoolExhausted
from dataflow.testing.isolation.context import TDDTestContext

pytestmark = pytest.mark.asyncio


async def test_a_wait_in_vain_ends_and_names_the_holders(make):
    tdd = make(pool_max_overflow=1, pool_timeout=2)
    tdd.who = lambda: "test_greedy"
    pool = await tdd.manager.asyncpg_pool()
    async with pool.acquire() as first:
        assert await first.fetchval("SELECT 1") == 1
        assert [context.holder for context in tdd.manager.active_contexts] == ["test_greedy"]
        with pytest.raises(
            PoolExhausted, match=r"within 2 s; all 1 are held by:\n    - test_greedy, held for \d+"
        ):
            await pool.acquire()
        with pytest.raises(PoolExhausted, match=r"within 0\.1 s"):
            await pool.acquire(timeout=0.1)
    assert tdd.manager.active_contexts == ()
    assert await pool.fetchval("SELECT 2") == 2


async def test_a_holder_can_be_made_to_give_way(make):
    """As happens to a test that ends with a connection: the next one gets the place."""
    tdd = make(pool_max_overflow=1, pool_timeout=5)
    pool = await tdd.manager.asyncpg_pool()
    forgotten = await pool.acquire()
    (context,) = tdd.manager.active_contexts
    tdd.manager.discard(context)
    assert tdd.manager.active_contexts == ()
    assert await pool.fetchval("SELECT 1") == 1
    with pytest.raises(asyncpg.InterfaceError):
        await forgotten.fetchval("SELECT 1")
    await pool.release(forgotten)


async def test_what_broke_is_nobodys(make):
    tdd = make(pool_max_overflow=2)
    pool = await tdd.manager.asyncpg_pool()
    connection = await pool.acquire()
    tdd.ask("SELECT pg_terminate_backend(%s, 5000)", connection.get_server_pid())
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    await pool.release(connection)
    assert tdd.manager.active_contexts == ()
    assert await pool.fetchval("SELECT 1") == 1


async def test_its_connections_count_with_the_others_beside_the_pool(make):
    tdd = make(pool_size=1, pool_max_overflow=3, pool_timeout=2)
    single = [await tdd.manager.open_connection(TDDTestContext(f"single {n}")) for n in range(2)]
    pool = await tdd.manager.asyncpg_pool()
    async with pool.acquire(), tdd.test_context("a test"):
        assert tdd.backends() == 4
        with pytest.raises(PoolExhausted, match="single 0"):
            await tdd.manager.open_connection(TDDTestContext("one too many"))
        with pytest.raises(PoolExhausted, match="single 0"):
            await pool.acquire()
    for connection in single:
        await tdd.manager.close_connection(connection)


async def test_what_it_keeps_idle_makes_way(make):
    """Also for a single connection when it has used all places before."""
    tdd = make(pool_size=1, pool_max_overflow=2, pool_timeout=2)
    pool = await tdd.manager.asyncpg_pool()
    async with pool.acquire(), pool.acquire():
        pass
    single = [await tdd.manager.open_connection(TDDTestContext(f"single {n}")) for n in range(2)]
    async with tdd.test_context("a test"):
        assert tdd.backends() <= 3
    for connection in single:
        await tdd.manager.close_connection(connection)
    assert await pool.fetchval("SELECT 1") == 1


async def test_all_places_can_be_taken(make):
    """In the smallest of settings: one for the test, one beside it."""
    tdd = make(pool_size=1, pool_max_overflow=1, pool_timeout=2)
    async with tdd.test_context("a test") as context:
        single = await tdd.manager.open_connection(TDDTestContext("single"))
        assert await single.fetchval("SELECT 1") == await context.connection.fetchval("SELECT 1")
        await tdd.manager.close_connection(single)


async def test_closing_it_is_bounded(make, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.plain_pool.CLOSE_TIMEOUT_S", 0.5)
    tdd = make()
    pool = await tdd.manager.asyncpg_pool()
    await pool.acquire()
    async with asyncio.timeout(20):
        await pool.close()


async def test_none_is_allowed(make):
    tdd = make(pool_size=2, max_connections=2)
    with pytest.raises(PoolExhausted, match="the settings allow no such connection"):
        await tdd.manager.asyncpg_pool()


async def test_a_server_that_lets_nobody_in_is_told_in_words(make, admin_dsn):
    tdd = make()
    ask(admin_dsn, "CREATE DATABASE plain_pool_test OWNER dataflow_test")
    try:
        await tdd.manager.initialize(admin_dsn.with_database("plain_pool_test").url())
    finally:
        ask(admin_dsn, "DROP DATABASE plain_pool_test WITH (FORCE)")
    pool = await tdd.manager.asyncpg_pool()
    with pytest.raises(MissingDatabase, match="has no database 'plain_pool_test'"):
        await pool.fetchval("SELECT 1")
    ask(admin_dsn, "CREATE DATABASE plain_pool_test OWNER dataflow_test")
    try:
        assert await pool.fetchval("SELECT 1") == 1
        await tdd.close()
    finally:
        ask(admin_dsn, "DROP DATABASE plain_pool_test WITH (FORCE)")
