"""What drivers of other connections in the test's transaction do beside plain statements."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.isolation.conftest import ask

from dataflow.testing.events import ContextReleased
from dataflow.testing.proof.escape import Verdict
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
        assert witness.judge(window, "proof_installs_test") == Verdict()
    finally:
        witness.close()
        ask(admin_dsn, "DROP DATABASE proof_installs_test WITH (FORCE)")
