"""Pools of psycopg_pool in the transaction of a test."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import psycopg_pool
import pytest

from dataflow.testing.errors import MissingLibrary, StaleContext

pytestmark = pytest.mark.asyncio

COUNT = "SELECT count(*) FROM item"


@pytest.fixture
def place(tdd):
    return tdd.psycopg_tests


async def test_a_pool_is_in_the_transaction_of_the_test(tdd, place):
    context = place.begin("pools")
    pool = context.psycopg_pool
    assert isinstance(pool, psycopg_pool.ConnectionPool)
    with pool.connection() as connection:
        connection.execute("INSERT INTO item VALUES (1)")
    with pytest.raises(psycopg.errors.DivisionByZero), pool.connection() as connection:
        connection.execute("INSERT INTO item VALUES (2); SELECT 1/0")
    held = pool.getconn()
    held.execute("INSERT INTO item VALUES (3)")
    pool.putconn(held)  # which rolls it back
    assert context.connect().execute(COUNT).fetchone() == (1,)
    assert tdd.ask("SELECT id FROM item") == []
    place.end(context)
    assert tdd.ask("SELECT id FROM item") == []


async def test_its_threads_and_connections_end_with_the_test(place):
    before = set(threading.enumerate())
    context = place.begin("ends")
    pool = context.psycopg_pool
    assert set(threading.enumerate()) == before  # nobody has used it yet
    with pool.connection() as connection:
        connection.execute(COUNT)
    held = pool.getconn()
    place.end(context)
    assert set(threading.enumerate()) == before
    assert held.closed
    pool.putconn(held)
    with pytest.raises(psycopg_pool.PoolClosed), pool.connection():
        pass
    with pytest.raises(StaleContext):
        context.psycopg_pool  # noqa: B018


async def test_threads_share_it(place):
    context = place.begin("shares")
    pool = context.psycopg_pool

    def add(number):
        with pool.connection() as connection:
            before = connection.execute(COUNT).fetchone()[0]
            connection.execute("INSERT INTO item VALUES (%s)", (number,))
            assert connection.execute(COUNT).fetchone()[0] == before + 1

    with ThreadPoolExecutor(max_workers=12) as threads:
        list(threads.map(add, range(60)))
    assert context.connection.execute(COUNT).fetchone() == (60,)
    place.end(context)


async def test_what_it_gives_to_its_connections(place):
    context = place.begin("arguments")
    pool = context.psycopg_pool
    pool.kwargs["autocommit"] = True
    with pool.connection() as connection:
        assert connection.autocommit
    pool.check()
    with context.psycopg_pool as same:
        assert same is pool
    place.end(context)


async def test_one_that_is_used_up_says_so(place, monkeypatch):
    monkeypatch.setattr("dataflow.testing.sandbox.client.TURN_LIMIT_S", 0.2)
    context = place.begin("takes all")
    pool = context.psycopg_pool
    held = [pool.getconn() for _ in range(10)]
    with pytest.raises(
        psycopg_pool.PoolTimeout, match=r"no connection of context\.psycopg_pool became free within 0\.2 s"
    ) as told:
        pool.getconn()
    assert 'tdd(isolation="database")' in str(told.value)
    for connection in held:
        pool.putconn(connection)
    place.end(context)


async def test_an_asynchronous_pool(tdd):
    async def add(number):
        async with pool.connection() as connection:
            before = (await (await connection.execute(COUNT)).fetchone())[0]
            await connection.execute("INSERT INTO item VALUES (%s)", (number,))
            assert (await (await connection.execute(COUNT)).fetchone())[0] == before + 1

    async with tdd.test_context("pools") as context:
        pool = context.psycopg_pool
        assert isinstance(pool, psycopg_pool.AsyncConnectionPool)
        await asyncio.gather(*(add(number) for number in range(30)))
        assert await context.connection.fetchval(COUNT) == 30
        assert tdd.backends() == 1
        held = await pool.getconn()
    assert held.closed
    await pool.putconn(held)
    with pytest.raises(psycopg_pool.PoolClosed):
        await pool.getconn()
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == 1


async def test_an_asynchronous_one_that_is_used_up_says_so(tdd, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.connection.TURN_LIMIT_S", 0.2)
    async with tdd.test_context("takes all") as context:
        held = [await context.psycopg_pool.getconn() for _ in range(10)]
        with pytest.raises(psycopg_pool.PoolTimeout, match=r"became free within 0\.2 s; there are 10") as told:
            await context.psycopg_pool.getconn()
        assert 'tdd(isolation="database")' in str(told.value)
        for connection in held:
            await context.psycopg_pool.putconn(connection)


async def test_a_transaction_that_is_kept_open_is_the_limit_of_a_pool(tdd, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.connection.TURN_LIMIT_S", 0.2)
    async with tdd.test_context("keeps") as context:
        async with context.psycopg_pool.connection() as first:
            await first.execute("INSERT INTO item VALUES (1)")
            async with context.psycopg_pool.connection() as second:
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    await second.execute(COUNT)


async def test_without_psycopg_pool_it_says_what_to_install(tdd, place, monkeypatch):
    monkeypatch.delitem(sys.modules, "dataflow.testing.isolation.psycopg_pool", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg_pool", None)
    context = place.begin("has no pools")
    with pytest.raises(MissingLibrary, match="psycopg_pool cannot be imported") as told:
        context.psycopg_pool  # noqa: B018
    assert 'pip install "dataflow-tdd[psycopg]"' in told.value.remedy
    place.end(context)
    async with tdd.test_context("has none either") as context:
        with pytest.raises(MissingLibrary, match="psycopg_pool cannot be imported"):
            context.psycopg_pool  # noqa: B018
