"""Several connections in one transaction: a pool, what an engine opens, tasks that work at a time."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from dataflow.testing.errors import PoolExhausted, StaleContext
from dataflow.testing.isolation.committing import connect_committing, disconnect_committing
from dataflow.testing.lease.lease import DatabaseLease
from dataflow.testing.settings import Sources, resolve

pytestmark = pytest.mark.asyncio

COUNT = "SELECT count(*) FROM item"


async def test_a_pool_is_in_the_transaction_of_the_test(tdd):
    async with tdd.test_context("pools") as context:
        await context.connection.execute("INSERT INTO item VALUES (1)")
        pool = context.pool
        assert isinstance(pool, asyncpg.Pool)
        assert await pool.fetchval(COUNT) == 1
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO item VALUES ($1)", 2)
        async with pool.acquire() as connection:
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.execute("BEGIN; INSERT INTO item VALUES (3); SELECT 1/0")
            await connection.execute("ROLLBACK")
        held = await pool.acquire()
        await held.executemany("INSERT INTO item VALUES ($1)", [(4,), (5,)])
        await pool.release(held)
        assert [row["id"] for row in await context.connection.fetch("SELECT id FROM item ORDER BY id")] == [
            1,
            2,
            4,
            5,
        ]
        assert tdd.ask("SELECT id FROM item") == []
        assert tdd.backends() == 1
    assert tdd.ask("SELECT id FROM item") == []


async def test_tasks_take_turns(tdd):
    async def add(pool, number):
        async with pool.acquire() as connection, connection.transaction():
            before = await connection.fetchval(COUNT)
            await asyncio.sleep(0)
            await connection.execute("INSERT INTO item VALUES ($1)", number)
            assert await connection.fetchval(COUNT) == before + 1

    async with tdd.test_context("gathers") as context:
        await asyncio.gather(*(add(context.pool, number) for number in range(30)))
        assert await context.connection.fetchval(COUNT) == 30


async def test_a_test_that_waits_for_itself_is_told(tdd, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.connection._TURN_LIMIT_S", 0.2)
    async with tdd.test_context("waits") as context:
        connection, other = context.connection, await context.connect()
        async with connection.transaction():
            await connection.execute("INSERT INTO item VALUES (1)")
            for way in (other.execute, other.fetch, other.prepare):
                with pytest.raises(
                    asyncpg.LockNotAvailableError, match=r"waited 0\.2 s for the transaction"
                ) as told:
                    await way(COUNT)
                assert 'tdd(isolation="database")' in told.value.hint
        assert await other.fetchval(COUNT) == 1
        async with other.transaction():
            with pytest.raises(asyncpg.LockNotAvailableError):
                await connection.fetchval(COUNT)
        assert await connection.fetchval(COUNT) == 1


async def test_who_waits_goes_on_when_it_is_its_turn(tdd):
    async with tdd.test_context("waits") as context:
        other = await context.connect()
        block = context.connection.transaction()
        await block.start()
        waiting = asyncio.create_task(other.fetchval(COUNT))
        await context.connection.execute("INSERT INTO item VALUES (1)")
        assert not waiting.done()
        await block.commit()
        assert await waiting == 1


async def test_they_end_with_the_test(tdd):
    async with tdd.test_context("ends") as context:
        other, pool = await context.connect(), context.pool
        await other.execute("BEGIN; INSERT INTO item VALUES (1)")
    assert other.is_closed()
    for use in (pool.fetchval, other.fetchval):
        with pytest.raises(asyncpg.InterfaceError):
            await use(COUNT)
    with pytest.raises(StaleContext):
        await context.connect()
    async with tdd.test_context("the next") as context:
        assert await context.pool.fetchval(COUNT) == 0
    assert tdd.backends() == 1


async def test_one_that_is_closed_leaves_its_transaction_undone(tdd):
    async with tdd.test_context("closes") as context:
        for close in (asyncpg.Connection.close, asyncpg.Connection.terminate):
            other = await context.connect()
            await other.execute("BEGIN; INSERT INTO item VALUES (1)")
            closing = close(other)
            if closing is not None:
                await closing
            assert await context.connection.fetchval(COUNT) == 0


async def test_a_pool_that_is_used_up_says_so(tdd, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.connection._TURN_LIMIT_S", 0.2)
    async with tdd.test_context("takes all") as context:
        held = [await context.pool.acquire() for _ in range(10)]
        with pytest.raises(
            PoolExhausted, match=r"no connection of context\.pool became free within 0\.2 s; there are 10"
        ):
            await context.pool.acquire()
        for connection in held:
            await context.pool.release(connection)


async def test_an_engine_of_sqlalchemy_is_in_the_transaction(tdd):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    insert = sqlalchemy.text("INSERT INTO item VALUES (:id)")
    async with tdd.test_context("an application") as context:
        engine = create_async_engine("postgresql+asyncpg://", async_creator=context.connect)
        session = async_sessionmaker(engine)
        async with session() as first:
            await first.execute(insert, {"id": 1})
            await first.commit()
            await first.execute(insert, {"id": 2})
            await first.rollback()
            async with first.begin_nested():
                await first.execute(insert, {"id": 3})
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                async with first.begin_nested():
                    await first.execute(sqlalchemy.text("SELECT 1/0"))
            await first.commit()
        async with session.begin() as second:
            assert list(await second.scalars(sqlalchemy.text("SELECT id FROM item ORDER BY id"))) == [1, 3]
        await engine.dispose()
        assert await context.connection.fetchval(COUNT) == 2
    assert tdd.ask("SELECT id FROM item") == []


async def test_of_a_test_that_commits_they_are_connections_to_its_database(tdd):
    async with tdd.test_context("commits") as inside:
        dsn = tdd.manager.server.dsn
        context = type(inside)("commits really")
        context.database = DatabaseLease("commits really", dsn)
        await connect_committing(context, resolve(Sources()))
        pool, other = context.pool, await context.connect()
        await pool.execute("INSERT INTO item VALUES (1)")
        pids = {await each.fetchval("SELECT pg_backend_pid()") for each in (pool, other, context.connection)}
        assert len(pids) == 3
        assert tdd.ask("SELECT id FROM item") == [(1,)]
        await disconnect_committing(context)
        assert other.is_closed()
        tdd.ask("DELETE FROM item RETURNING id")
