"""Asynchronous connections of psycopg in the transaction of a test with asyncpg."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from time import monotonic

import asyncpg
import psycopg
import pytest

from dataflow.testing.errors import StaleContext, WrongEventLoop
from dataflow.testing.isolation.committing import connect_committing, disconnect_committing
from dataflow.testing.lease.lease import DatabaseLease
from dataflow.testing.sandbox.recording import Recorder
from dataflow.testing.settings import Sources, resolve

pytestmark = pytest.mark.asyncio

COUNT = "SELECT count(*) FROM item"


async def ids(connection):
    cursor = await connection.execute("SELECT id FROM item ORDER BY id")
    return [row[0] for row in await cursor.fetchall()]


async def test_both_drivers_are_in_one_transaction(tdd):
    async with tdd.test_context("both") as context:
        connection = await context.connect_psycopg()
        assert isinstance(connection, psycopg.AsyncConnection)
        await context.connection.execute("INSERT INTO item VALUES (1)")
        await connection.execute("INSERT INTO item VALUES (%s)", (2,))
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        await connection.commit()
        await connection.execute("INSERT INTO item VALUES (3)")
        await connection.rollback()
        assert await context.connection.fetchval(COUNT) == 2
        assert tdd.ask("SELECT id FROM item") == []
        assert tdd.backends() == 1
    assert tdd.ask("SELECT id FROM item") == []


async def test_autocommit_and_blocks(tdd):
    async with tdd.test_context("autocommit") as context:
        connection = await context.connect_psycopg(autocommit=True)
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT 1/0")
        async with connection.transaction():
            await connection.execute("INSERT INTO item VALUES (1)")
            with pytest.raises(psycopg.errors.DivisionByZero):
                async with connection.transaction():
                    await connection.execute("INSERT INTO item VALUES (2); SELECT 1/0")
        async with await context.connect_psycopg() as other:
            await other.execute("INSERT INTO item VALUES (3)")
        assert other.closed
        assert await ids(connection) == [1, 3]


async def test_rows_in_bulk_pipelines_and_cursors(tdd):
    async with tdd.test_context("bulk") as context:
        connection = await context.connect_psycopg()
        async with connection.cursor() as cursor:
            async with cursor.copy("COPY item FROM STDIN") as copy:
                for number in range(50_000):
                    await copy.write_row((number,))
            async with cursor.copy("COPY item TO STDOUT") as copy:
                assert sum([bytes(block).count(b"\n") async for block in copy]) == 50_000
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                async with cursor.copy("COPY item FROM STDIN") as copy:
                    await copy.write("x\n")
        await connection.rollback()
        async with connection.cursor(name="of_the_server") as cursor:
            await cursor.execute("SELECT generate_series(1, 1000)")
            assert len(await cursor.fetchmany(10)) == 10
        cursor = await connection.execute("SELECT generate_series(1, 200000)")
        assert len(await cursor.fetchall()) == 200_000
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", (number,)) for number in range(50)]
            assert [(await cursor.fetchone())[0] for cursor in cursors] == list(range(50))
        for number in range(10):
            cursor = await connection.execute("SELECT %s::int", (number,), prepare=True)
            assert await cursor.fetchone() == (number,)
        assert len([row async for row in connection.cursor().stream("SELECT generate_series(1, 1000)")]) == 1000
        async for row in connection.cursor().stream("SELECT generate_series(1, 10000000)"):
            assert row == (1,)
            break
        await connection.rollback()
        assert await _value(connection, "SELECT 1") == 1


async def test_notices_reach_the_one_who_caused_them(tdd):
    async with tdd.test_context("notices") as context:
        said = []
        connection, other = await context.connect_psycopg(), await context.connect_psycopg()
        for each in (connection, other):
            each.add_notice_handler(lambda notice, each=each: said.append((each, notice.message_primary)))
        await connection.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
        assert said == [(connection, "hello")]


async def test_waiting_for_notifications_ends_when_it_was_told_to(tdd):
    async with tdd.test_context("notifies") as context:
        connection = await context.connect_psycopg(autocommit=True)
        await connection.execute("LISTEN news")
        assert [each async for each in connection.notifies(timeout=0.2)] == []


async def test_connections_take_turns(tdd, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.connection.TURN_LIMIT_S", 0.3)
    async with tdd.test_context("turns") as context:
        first, second = await context.connect_psycopg(), await context.connect_psycopg(autocommit=True)
        await first.execute("INSERT INTO item VALUES (1)")
        with pytest.raises(psycopg.errors.LockNotAvailable, match=r"waited 0\.3 s for the transaction") as told:
            await second.execute(COUNT)
        assert 'tdd(isolation="database")' in told.value.diag.message_hint
        with pytest.raises(asyncpg.LockNotAvailableError):
            await context.connection.fetchval(COUNT)
        waiting = asyncio.create_task(ids(second))
        await asyncio.sleep(0.05)
        await first.commit()
        assert await waiting == [1]


async def test_a_cancelled_task_ends_its_own_statement_alone(tdd):
    async with tdd.test_context("cancels") as context:
        first, second = [await context.connect_psycopg(autocommit=True) for _ in range(2)]
        started = monotonic()
        sleeping = asyncio.create_task(first.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(second.execute("SELECT 2"))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not sleeping.done()
        assert await _value(second, "SELECT 3", after=sleeping.cancel) == 3
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert await _value(first, "SELECT 4") == 4
        assert await context.connection.fetchval("SELECT 5") == 5
        assert monotonic() - started < 10


async def test_what_is_cancelled_when_it_is_over_already_hits_no_other(tdd):
    async with tdd.test_context("late") as context:
        one, other = await context.connect_psycopg(autocommit=True), await context.connect()
        for _ in range(5):
            late = asyncio.create_task(one.execute("SELECT pg_sleep(0.02)"))
            await asyncio.sleep(0.005)
            next_one = asyncio.create_task(other.fetchval("SELECT 7 FROM pg_sleep(0.2)"))
            await asyncio.sleep(0)
            late.cancel()
            time.sleep(0.05)  # the loop is busy, and its end comes in the meantime
            await asyncio.wait([late])
            assert await next_one == 7


async def test_nor_does_it_hit_the_end_of_the_test(tdd):
    backends = set()
    for number in range(10):
        async with tdd.test_context(f"late {number}") as context:
            backends.add(context.connection.backend_pid)
            connection = await context.connect_psycopg(autocommit=True)
            late = asyncio.create_task(connection.execute("SELECT pg_sleep(0.02)"))
            await asyncio.sleep(0.005)
            late.cancel()
            time.sleep(0.03)
            await asyncio.wait([late])
    assert len(backends) == 1


async def _value(connection, statement, after=lambda: None):
    after()
    return (await (await connection.execute(statement)).fetchone())[0]


async def test_cancel_stops_what_is_under_way(tdd):
    async with tdd.test_context("cancel") as context:
        connection = await context.connect_psycopg(autocommit=True)
        for cancel in (connection.cancel, connection.cancel_safe):
            sleeping = asyncio.create_task(connection.execute("SELECT pg_sleep(30)"))
            await asyncio.sleep(0.1)
            if (cancelling := cancel()) is not None:
                await cancelling
            with pytest.raises(psycopg.errors.QueryCanceled):
                await sleeping
        await connection.cancel_safe()  # of nothing
        assert await _value(connection, "SELECT 1") == 1


async def test_they_end_with_the_test(tdd):
    async with tdd.test_context("ends") as context:
        idle, busy = [await context.connect_psycopg(autocommit=True) for _ in range(2)]
        await idle.execute("BEGIN; INSERT INTO item VALUES (1)")
        straggler = asyncio.create_task(busy.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.05)
    assert idle.closed
    with pytest.raises(psycopg.OperationalError, match="closed while a statement was under way"):
        await straggler
    assert busy.closed
    with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
        await idle.execute(COUNT)
    with pytest.raises(StaleContext):
        await context.connect_psycopg()
    async with tdd.test_context("the next") as context:
        assert await _value(await context.connect_psycopg(), COUNT) == 0


async def test_a_server_that_ends_the_session_is_seen(tdd):
    async with tdd.test_context("ended") as context:
        connection = await context.connect_psycopg()
        tdd.ask(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("SELECT pg_sleep(5)")
        assert connection.closed


async def test_another_loop_is_refused(tdd):
    async with tdd.test_context("loops") as context:
        connection = await context.connect_psycopg()
        refused = []

        def in_a_thread():
            with pytest.raises(WrongEventLoop) as told:
                asyncio.run(connection.execute("SELECT 1"))
            refused.append(told.value)

        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
        assert "another event loop" in refused[0].what


async def test_an_unknown_argument_is_refused_as_by_psycopg(tdd):
    async with tdd.test_context("arguments") as context:
        with pytest.raises(psycopg.ProgrammingError, match="autocomit"):
            await context.connect_psycopg(autocomit=True)
        connection = await context.connect_psycopg(
            "connect_timeout=5", row_factory=psycopg.rows.dict_row, prepare_threshold=None
        )
        assert await (await connection.execute("SELECT 1 AS one")).fetchone() == {"one": 1}
        assert connection.prepare_threshold is None


async def test_what_the_environment_says_of_servers_does_not_matter(tdd, monkeypatch):
    for name, value in {
        "PGHOSTADDR": "127.0.0.1",
        "PGSSLMODE": "require",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGTARGETSESSIONATTRS": "standby",
        "PGCHANNELBINDING": "require",
    }.items():
        monkeypatch.setenv(name, value)
    async with tdd.test_context("environment") as context:
        assert await _value(await context.connect_psycopg(), "SELECT 1") == 1


async def test_of_a_test_that_commits_they_are_connections_to_its_database(tdd):
    async with tdd.test_context("commits") as inside:
        dsn = tdd.manager.server.dsn
        context = type(inside)("commits really")
        context.database = DatabaseLease("commits really", dsn)
        await connect_committing(context, resolve(Sources()), Recorder(lambda: "test"))
        connection = await context.connect_psycopg(autocommit=True)
        await connection.execute("INSERT INTO item VALUES (1)")
        async with context.psycopg_pool.connection() as other:
            assert other.info.backend_pid != connection.info.backend_pid
            assert await ids(other) == [1]
        assert tdd.ask("SELECT id FROM item") == [(1,)]
        await disconnect_committing(context)
        assert connection.closed
        tdd.ask("DELETE FROM item RETURNING id")


async def test_closing_leaves_nothing_open(tdd):
    async with tdd.test_context("files") as context:
        connection, kept = await context.connect_psycopg(), await context.connect_psycopg()
        await connection.execute("SELECT 1")
        await connection.close()
        assert connection.closed
        assert not connection.broken
        assert len(_ends()) == 1
    assert _ends() == []
    assert kept.closed


def _ends():
    """Of this process, our ends of connections of libpq."""
    ours = {str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
    known = [line.split() for line in Path("/proc/net/unix").read_text().splitlines() if "@tdd-" in line]
    return [fields for fields in known if f"socket:[{fields[6]}]" in ours]
