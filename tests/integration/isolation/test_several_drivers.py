"""What drivers of other connections in the test's transaction do beside plain statements."""

from __future__ import annotations

import asyncio
from time import monotonic

import psycopg
import pytest
from tests.integration.isolation.conftest import ask

from dataflow.testing.events import ContextReleased
from dataflow.testing.proof.horizon import Horizon, Window
from dataflow.testing.proof.witness import Witness

pytestmark = pytest.mark.asyncio

MUCH = "SELECT repeat('a', 500) FROM generate_series(1, 5000)"


async def test_a_copy_that_is_cancelled_while_its_rows_wait(tdd):
    """asyncpg waits for the end of a statement that it cancels, and so must not have read it before."""
    got = []

    async def never_ready(data):
        await asyncio.sleep(60 if got else 0.2)
        got.append(data)

    async with tdd.test_context("copies") as context:
        connection = await context.connect()
        copying = asyncio.create_task(connection.copy_from_query(MUCH, output=never_ready))
        await asyncio.sleep(0.5)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        async with asyncio.timeout(10):
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_copy_whose_rows_are_taken_slowly(tdd):
    got = bytearray()

    async def slow(data):
        await asyncio.sleep(0.01)
        got.extend(data)

    async with tdd.test_context("copies") as context:
        await (await context.connect()).copy_from_query(MUCH, output=slow)
    assert got.decode().split() == ["a" * 500] * 5000


async def test_a_cursor_moves_by_its_name(tdd):
    async with tdd.test_context("moves") as context:
        connection = await context.connect()
        async with connection.transaction():
            cursor = await connection.cursor("SELECT generate_series(0, 100)")
            assert await cursor.forward(42) == 42
            assert await cursor.fetchrow() == (42,)


async def test_a_driver_may_say_how_much_it_wants_buffered(tdd):
    async with tdd.test_context("buffers") as context:
        transport = (await context.connect())._transport
        transport.set_write_buffer_limits(1 << 20)
        assert transport.get_write_buffer_size() == 0


async def test_an_unnamed_statement_waits_for_named_ones(tdd):
    """asyncpg parses the one, asks for the types of its parameters by others, and then binds it."""
    async with tdd.test_context("parses") as context:
        connection = await context.connect(max_cacheable_statement_size=10_000)
        sql = f"SELECT $1::int[], '{'a' * 10_000}'"
        assert (await connection.fetchrow(sql, [1, 2]))[0] == [1, 2]


@pytest.mark.parametrize("which", ["that of the test", "another", "another, which is closed"])
async def test_a_statement_that_was_only_prepared_when_the_test_ends(tdd, which):
    """The driver leaves open what it does with it; the session serves the next test all the same."""
    context = await tdd.begin_test("prepares")
    backend = context.connection.backend_pid
    connection = context.connection if which == "that of the test" else await context.connect()
    await connection.prepare("SELECT 1")
    if which.endswith("closed"):
        await connection.close()
    await tdd.end_test(context)
    released = tdd.events[-1]
    assert isinstance(released, ContextReleased)
    assert released.problem is None
    async with tdd.test_context("the next one") as context:
        assert context.connection.backend_pid == backend
        assert await context.connection.fetchval("SELECT 2") == 2


@pytest.mark.parametrize("statement", ["DEALLOCATE ALL", "DISCARD ALL"])
async def test_one_that_forgets_all_it_has_prepared_leaves_the_others_theirs(tdd, statement):
    """psycopg does it by itself, behind a ROLLBACK or DROP."""
    query = "SELECT count(*) FROM item WHERE id > $1"
    for _ in range(2):  # that of the test has what it prepared in an earlier one
        async with tdd.test_context("forgets") as context:
            others = context.connection, await context.connect()
            connection = await context.connect_psycopg(autocommit=True)
            for other in others:
                assert await other.fetchval(query, 0) == 0
            for _ in range(7):
                await connection.execute("SELECT %s::int", (1,))
            await connection.execute(statement)
            for other in others:
                assert await other.fetchval(query, 0) == 0
            names = await context.connection.fetch("SELECT name FROM pg_prepared_statements")
            assert not [name for (name,) in names if "_pg3_" in name]


async def test_one_that_deallocates_by_sql_finds_its_own_name(tdd):
    """As psycopg does with older versions of libpq."""
    async with tdd.test_context("older") as context:
        one, other = [await context.connect_psycopg(autocommit=True) for _ in range(2)]
        for connection in (one, other):
            connection.pgconn.send_prepare(b"mine", b"SELECT 1")
            await connection.wait(psycopg.generators.execute(connection.pgconn))
        await other.execute("DEALLOCATE mine")
        other.pgconn.send_query_prepared(b"mine", None)
        (result,) = await other.wait(psycopg.generators.execute(other.pgconn))
        assert b'prepared statement "mine" does not exist' in result.error_message
        await one.execute('DEALLOCATE PREPARE "mine"')


async def test_the_end_of_a_test_does_not_wait_for_what_a_connection_has_given_up(tdd):
    backends, started = set(), monotonic()
    for number in range(3):
        async with tdd.test_context(f"gives up {number}") as context:
            backends.add(context.connection.backend_pid)
            connection = await (context.pool.acquire() if number else context.connect())
            with pytest.raises(TimeoutError):
                await connection.execute("SELECT pg_sleep(20)", timeout=0.02)
        assert tdd.events[-1].problem is None
    assert len(backends) == 1
    assert monotonic() - started < 5


async def test_what_goes_wrong_in_one_driver_does_not_end_the_session(tdd):
    async with tdd.test_context("goes wrong") as context:
        connection = await context.connect()

        def fail(_data):
            raise RuntimeError("a defect of the driver")

        connection._transport._inner = type("Inner", (), {"data_received": fail, "connection_lost": fail})
        running = asyncio.create_task(connection.execute("SELECT 1"))
        await asyncio.sleep(0.1)
        running.cancel()
        assert await context.connection.fetchval("SELECT 2") == 2


async def test_what_the_proof_installs_for_itself_is_no_escape(admin_dsn):
    """Where the test's connection could not be asked any more, and the database is that of the tests."""
    ask(admin_dsn, "CREATE DATABASE proof_installs_test")
    dsn = admin_dsn.with_database("proof_installs_test")
    witness = Witness(dsn)
    try:
        ((position, snapshot, first_new),) = ask(
            dsn,
            "SELECT pg_current_wal_insert_lsn()::text, pg_current_snapshot()::text,"
            " pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
        )
        window = Window(Horizon(position, snapshot, first_new), None, 0.0, ())
        # Where a neighbour's transaction was open, it cannot be proven; no escape it is all the same.
        assert witness.judge(window, "proof_installs_test").escape is None
    finally:
        witness.close()
        ask(admin_dsn, "DROP DATABASE proof_installs_test WITH (FORCE)")
