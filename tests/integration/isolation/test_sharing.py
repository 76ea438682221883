"""Several connections in one transaction: a pool, what an engine opens, tasks that work at a time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import asyncpg
import pytest

from dataflow.testing.errors import PoolExhausted, StaleContext, WrongEventLoop
from dataflow.testing.isolation.committing import connect_committing, disconnect_committing
from dataflow.testing.lease.lease import DatabaseLease
from dataflow.testing.sandbox.recording import Recorder
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


class Counting(asyncpg.Connection):
    async def count(self):
        return await self.fetchval(COUNT)


@pytest.mark.parametrize("kind", [asyncpg.Connection, Counting])
async def test_a_pool_of_ones_own_may_have_connections_of_the_test(tdd, kind):
    where = "postgresql://elsewhere.invalid/production"
    async with tdd.test_context("its own pool") as context:
        async with asyncpg.create_pool(where, connection_class=kind, connect=context.connect) as pool:
            await pool.execute("INSERT INTO item VALUES (1)")
            async with pool.acquire() as one:
                assert kind is asyncpg.Connection or await one.count() == 1
                with pytest.raises(TimeoutError):
                    await one.execute("SELECT pg_sleep(60)", timeout=0.1)
        assert await context.connection.fetchval(COUNT) == 1
    assert tdd.ask("SELECT id FROM item") == []


def in_a_thread(work):
    """Its result; the loop that runs here stands still meanwhile."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result(timeout=20)


async def test_another_loop_is_told_so_and_waits_for_nothing(tdd):
    async with tdd.test_context("loops") as context:
        one, used = await context.connect(), await context.connect_psycopg()
        pool, with_psycopg = context.pool, context.psycopg_pool
        ways = [
            lambda: pool.fetchval(COUNT),
            lambda: pool.acquire(),
            lambda: context.connect(),
            lambda: one.fetchval(COUNT),
            lambda: one.prepare(COUNT),
            lambda: context.connect_psycopg(),
            lambda: used.execute(COUNT),
            lambda: with_psycopg.getconn(),
        ]

        async def awaited(way):
            await way()

        for way in ways:
            with pytest.raises(WrongEventLoop, match=r"AsyncClient|in which it is used"):
                in_a_thread(partial(asyncio.run, awaited(way)))
        assert await pool.fetchval(COUNT) == await one.fetchval(COUNT) == 0


async def test_a_thread_may_pass_a_pool_on_to_the_loop_of_the_test(tdd):
    async with tdd.test_context("passes on") as context:
        pool = in_a_thread(lambda: context.pool)
        with_psycopg = in_a_thread(lambda: context.psycopg_pool)
        assert await pool.fetchval(COUNT) == 0
        async with with_psycopg.connection() as connection:
            assert await (await connection.execute(COUNT)).fetchone() == (0,)


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
    monkeypatch.setattr("dataflow.testing.isolation.connection.TURN_LIMIT_S", 0.2)
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
    monkeypatch.setattr("dataflow.testing.isolation.connection.TURN_LIMIT_S", 0.2)
    async with tdd.test_context("takes all") as context:
        held = [await context.pool.acquire() for _ in range(10)]
        with pytest.raises(
            PoolExhausted, match=r"no connection of context\.pool became free within 0\.2 s; there are 10"
        ):
            await context.pool.acquire()
        for connection in held:
            await context.pool.release(connection)


@pytest.mark.parametrize(("driver", "creator"), [("asyncpg", "connect"), ("psycopg", "connect_psycopg")])
async def test_an_engine_of_sqlalchemy_is_in_the_transaction(tdd, driver, creator):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    insert = sqlalchemy.text("INSERT INTO item VALUES (:id)")
    async with tdd.test_context("an application") as context:
        engine = create_async_engine(f"postgresql+{driver}://", async_creator=getattr(context, creator))
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
        await connect_committing(context, resolve(Sources()), Recorder(lambda: "test"))
        pool, other = context.pool, await context.connect()
        await pool.execute("INSERT INTO item VALUES (1)")
        pids = {await each.fetchval("SELECT pg_backend_pid()") for each in (pool, other, context.connection)}
        assert len(pids) == 3
        assert tdd.ask("SELECT id FROM item") == [(1,)]
        await disconnect_committing(context)
        assert other.is_closed()
        tdd.ask("DELETE FROM item RETURNING id")


DEFERRABLE = "CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, big int CHECK (big < 100))"


async def test_what_cannot_be_parsed_fails_where_constraints_may_be_deferred(tdd):
    async with tdd.test_context("parses") as context:
        await context.connection.execute(DEFERRABLE)
        for connection in (context.connection, await context.connect()):
            for wrong in ("SELECT nope", "slect", "SELECT 1; SELECT 2"):
                with pytest.raises(asyncpg.PostgresError):
                    await connection.fetch(wrong, timeout=10)
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.executemany("INSERT INTO late VALUES ($1, 100)", [(n,) for n in range(20_000)])
            assert await connection.fetchval("SELECT count(*) FROM late", timeout=10) == 0


async def test_a_statement_that_was_only_prepared_keeps_nobody_waiting(tdd):
    async with tdd.test_context("prepares") as context:
        connection, other = context.connection, await context.connect()
        statement = await connection.prepare("SELECT $1::int")
        assert await other.fetchval(COUNT, timeout=2) == 0
        assert await statement.fetchval(7) == 7


async def test_who_was_served_is_not_refused_later(tdd, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.connection.TURN_LIMIT_S", 0.3)
    async with tdd.test_context("waits") as context:
        connection, other = context.connection, await context.connect()
        for one, two in ((connection, other), (other, connection)):
            busy = asyncio.create_task(one.execute("SELECT pg_sleep(0.1)"))
            await asyncio.sleep(0.02)
            await two.execute("SELECT 1")
            await busy
            await two.execute("SELECT pg_sleep(0.5)")
        # Statements end by themselves: nobody is refused for them, however long they take together.
        await asyncio.gather(*(context.pool.execute("SELECT pg_sleep(0.2)") for _ in range(4)))
        busy = asyncio.create_task(other.execute("SELECT pg_sleep(0.1)"))
        await asyncio.sleep(0.02)
        await connection.execute("SELECT 1")
        await busy
    async with tdd.test_context("the next") as context:
        await asyncio.sleep(0.5)
        await context.connection.execute("SELECT 1")


async def test_many_rows_that_fail_in_their_arguments_are_undone(tdd):
    rows = [(n,) for n in range(50_000)] + [("no number",)]
    async with tdd.test_context("many") as context:
        for connection in (context.connection, await context.connect()):
            with pytest.raises(asyncpg.DataError):
                await connection.executemany("INSERT INTO item VALUES ($1)", rows)
            assert await connection.fetchval(COUNT) == 0


async def test_one_that_is_cancelled_leaves_the_others_alone(tdd):
    async with tdd.test_context("cancels") as context:
        for one, two in (
            (context.connection, await context.connect()),
            (await context.connect(), context.connection),
        ):
            busy = asyncio.create_task(one.execute("SELECT pg_sleep(0.5)"))
            await asyncio.sleep(0.05)
            with pytest.raises(TimeoutError):
                await two.execute("INSERT INTO item VALUES (1)", timeout=0.1)
            await busy
            assert await one.fetchval(COUNT) == 0
            assert await two.fetchval(COUNT) == 0
            with pytest.raises(TimeoutError):
                await two.execute("SELECT pg_sleep(60)", timeout=0.1)
            assert await one.fetchval(COUNT) == 0


async def test_what_one_has_cancelled_when_it_is_over_already_hits_no_other(tdd):
    """A COPY that fails in the driver ends by itself, and is cancelled as well."""
    async with tdd.test_context("fails in the driver") as context:
        first, other = context.connection, await context.connect()
        for one, two in ((first, other), (other, first)) * 100:
            with pytest.raises((TypeError, asyncpg.DataError)):
                await one.copy_records_to_table("item", records=[(1,), ("no number",)])
            assert await two.fetchval(COUNT) == 0


async def test_a_slow_reader_gets_all_that_is_copied_out(tdd):
    async def sink(data):
        sizes.append(len(data))
        await asyncio.sleep(0.001)

    sizes = []
    async with tdd.test_context("copies") as context:
        other = await context.connect()
        await other.copy_from_query("SELECT repeat('x', 299) FROM generate_series(1, 20000)", output=sink)
        assert sum(sizes) == 300 * 20_000
        assert await context.connection.fetchval(COUNT) == 0


async def test_the_end_of_the_session_is_told_to_all(tdd):
    async with tdd.test_context("is ended") as context:
        other = await context.connect()
        waiting = asyncio.create_task(other.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.05)
        pid = context.connection.physical.get_server_pid()
        tdd.ask(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await asyncio.wait_for(waiting, 10)
        assert other.is_closed()
    async with tdd.test_context("the next") as context:
        assert await context.pool.fetchval(COUNT) == 0


async def test_constraints_that_others_made_meanwhile_are_checked(tdd):
    async with tdd.test_context("before") as context:
        await context.connection.execute("SELECT 1")
    tdd.ask(DEFERRABLE)
    async with tdd.test_context("after") as context:
        with pytest.raises(asyncpg.UniqueViolationError):
            await context.connection.execute("INSERT INTO late VALUES (1), (1)")


async def test_settings_of_a_transaction_end_with_it(tdd):
    async with tdd.test_context("settings") as context:
        connection = context.connection
        for _ in range(2):
            async with connection.transaction():
                await connection.fetchval("SELECT set_config($1, $2, true)", "app.tenant", "42")
                assert await connection.fetchval("SELECT current_setting('app.tenant', true)") == "42"
            assert not await connection.fetchval("SELECT current_setting('app.tenant', true)")
        await connection.fetchval("SELECT set_config($1, $2, true)", "app.tenant", "43")
        assert not await connection.fetchval("SELECT current_setting('app.tenant', true)")
        await connection.execute("BEGIN; SET LOCAL work_mem = '6MB'; SET work_mem = '8MB'; COMMIT")
        assert await connection.fetchval("SHOW work_mem") == "8MB"
