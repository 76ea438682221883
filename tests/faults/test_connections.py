"""Connections and backends break: the test says so in time, and the next one works."""

from __future__ import annotations

import asyncio
import os
import signal

import asyncpg
import pytest
from tests.waiting import wait_until

from dataflow.testing.errors import (
    ConnectionLost,
    PoolExhausted,
    ServerUnreachable,
    StatementTimeout,
)
from dataflow.testing.events import ServerRestarted
from dataflow.testing.isolation.context import TDDTestContext

pytestmark = pytest.mark.asyncio

# Longer than any limit in these tests, and shorter than pytest's own.
HANGS_S = 30


async def works(tdd):
    """The next test begins, has a clean database and ends."""
    async with asyncio.timeout(HANGS_S):
        async with tdd.test_context("next") as context:
            assert await context.connection.fetchval("SELECT count(*) FROM item") == 0
            await context.connection.execute("INSERT INTO item VALUES (1)")
    assert tdd.ask("SELECT id FROM item") == []
    pool = tdd.manager.connection_pool
    assert pool.get_size() == pool.get_idle_size()


async def pid_of(context) -> int:
    return await context.connection.fetchval("SELECT pg_backend_pid()")


def end_backend(tdd, pid):
    tdd.ask("SELECT pg_terminate_backend(%s, 5000)", pid)


async def test_a_backend_that_ends_between_two_tests_is_replaced_silently(tdd):
    for _ in range(3):
        async with tdd.test_context("before") as context:
            pid = await pid_of(context)
        end_backend(tdd, pid)
        async with tdd.test_context("after") as context:
            assert await pid_of(context) != pid
        end_backend(tdd, await idle_pid(tdd))
        context = TDDTestContext("by hand")
        connection = await tdd.manager.get_test_connection(context)
        assert await connection.fetchval("SELECT 1") == 1
        await tdd.manager.cleanup_test_connection(context)
    await works(tdd)
    await tdd.until_backends(1)
    assert not [event for event in tdd.events if isinstance(event, ServerRestarted)]
    assert not [event.problem for event in tdd.events[1:] if event.problem]


async def idle_pid(tdd):
    wait_until(lambda: tdd.backends() == 1, "the others are gone")
    ((pid,),) = tdd.ask(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'dataflow-tdd'"
    )
    return pid


async def test_all_idle_backends_end_at_once(tdd):
    contexts = [await tdd.begin_test() for _ in range(4)]
    pids = [await pid_of(context) for context in contexts]
    for context in contexts:
        await tdd.end_test(context)
    for pid in pids:
        end_backend(tdd, pid)
    await works(tdd)


async def test_a_backend_that_ends_in_mid_test(tdd):
    async with tdd.test_context("loses it") as context:
        await context.connection.execute("INSERT INTO item VALUES (1)")
        end_backend(tdd, await pid_of(context))
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, ConnectionLost)):
            await context.connection.execute("SELECT 1")
        with pytest.raises(ConnectionLost, match=r"loses it is closed(.|\n)*server ended it"):
            await context.connection.execute("SELECT 1")
    await works(tdd)


async def test_a_backend_that_ends_unnoticed_in_mid_test(tdd):
    async with tdd.test_context("does not notice") as context:
        await context.connection.execute("INSERT INTO item VALUES (1)")
        end_backend(tdd, await pid_of(context))
    await works(tdd)


async def test_a_killed_backend_makes_the_server_recover(make, own_cache):
    """The server ends all sessions then and recovers from its log; the databases stay."""
    tdd = make(cache_dir=own_cache)
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    async with tdd.test_context("killed") as context:
        await context.connection.execute("INSERT INTO item VALUES (1)")
        os.kill(await pid_of(context), signal.SIGKILL)
        with pytest.raises((asyncpg.PostgresError, OSError, ConnectionLost)):
            await context.connection.execute("SELECT 1")
    await works(tdd)


@pytest.mark.parametrize(
    ("settings", "of_context", "of_call", "limit"),
    # These limits are also those of BEGIN and of all that follows, so only that of the one call is short.
    [(2, None, None, 2), (20, 2, None, 2), (20, 10, 0.4, 0.4), (2, 3, None, 3)],
    ids=["settings", "context", "call", "context before settings"],
)
async def test_a_statement_is_cancelled_in_time_and_says_so(make, settings, of_context, of_call, limit):
    tdd = make(timeout=settings, pool_size=1)
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    async with tdd.test_context("slow", timeout=of_context) as context:
        pid = await pid_of(context)
        with pytest.raises(StatementTimeout) as told:
            await context.connection.fetch(
                "SELECT pg_sleep(60) /* password='secret' */", **({} if of_call is None else {"timeout": of_call})
            )
        assert f"(limit {limit:g} s): SELECT pg_sleep(60) /* password=***" in str(told.value)
        assert "DATAFLOW_TDD_TIMEOUT, --tdd-timeout" in str(told.value)
        assert isinstance(told.value, TimeoutError)
        await context.connection.execute("ROLLBACK")
        assert await context.connection.fetchval("SELECT 1") == 1
    await works(tdd)
    async with tdd.test_context("same connection") as context:
        assert await pid_of(context) == pid
        if limit == settings:  # the call's own goes before it
            await context.connection.execute(f"SELECT pg_sleep({limit + 0.1})", timeout=20)


async def _prepared(connection):
    await (await connection.prepare("SELECT pg_sleep(60)")).fetch()


async def _cursor(connection):
    async with connection.transaction():
        async for _ in connection.cursor("SELECT pg_sleep(60)"):
            pass


async def _many(connection):
    await connection.executemany("SELECT pg_sleep($1)", [(60,), (60,)])


async def _block(connection):
    async with connection.transaction():
        await connection.execute("CREATE TABLE lazy (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        await (await connection.prepare("SELECT pg_sleep(60)")).fetchval()


@pytest.mark.parametrize("way", [_prepared, _cursor, _many, _block])
async def test_prepared_statements_cursors_and_blocks_have_the_limit_of_the_context(make, way):
    tdd = make(timeout=2 * HANGS_S)
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    async with asyncio.timeout(HANGS_S):
        async with tdd.test_context("slow", timeout=2) as context:
            with pytest.raises(TimeoutError):
                await way(context.connection)
    await works(tdd)
    if way is _prepared:
        async with tdd.test_context("has the usual limit") as context:
            await (await context.connection.prepare("SELECT pg_sleep(2.2)")).fetch()


async def test_a_test_waits_for_a_lock_of_another_in_bounded_time(tdd):
    async with tdd.test_context("holder") as holder, tdd.test_context("waiter") as waiter:
        await holder.connection.execute("BEGIN; LOCK TABLE item; COMMIT")  # held until the end of the test
        with pytest.raises(StatementTimeout, match="a lock that another connection holds"):
            await waiter.connection.execute("BEGIN; LOCK TABLE item", timeout=0.3)
    await works(tdd)


@pytest.fixture
def soon(monkeypatch):
    """Shorter waits for a server that does not react."""
    monkeypatch.setattr("dataflow.testing.isolation.physical.SETTLE_S", 0.3)
    monkeypatch.setattr("dataflow.testing.isolation.connection.CLOSE_TIMEOUT_S", 0.3)
    monkeypatch.setattr("dataflow.testing.isolation.pool.CLOSE_TIMEOUT_S", 0.3)


class Stopped:
    """A backend that does not react while the block runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGCONT)


@pytest.mark.parametrize("then", ["end", "go on", "close", "cancelled", "prepared"])
@pytest.mark.usefixtures("soon")
async def test_a_backend_that_does_not_react_holds_nobody_up(make, then):
    tdd = make(pool_size=2)
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    async with asyncio.timeout(HANGS_S):
        context = await tdd.begin_test("stuck")
        connection = context.connection
        statement = await connection.prepare("SELECT 1")
        with Stopped(await pid_of(context)):
            if then == "cancelled":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(connection.execute("SELECT 1"), 0.1)
            elif then == "prepared":
                with pytest.raises(TimeoutError):
                    await statement.fetch(timeout=0.5)
            else:
                with pytest.raises(StatementTimeout):
                    await connection.execute("SELECT 1", timeout=0.5)
            if then == "go on":
                with pytest.raises((StatementTimeout, ConnectionLost, asyncpg.InterfaceError)):
                    await connection.execute("SELECT 1", timeout=0.5)
            if then == "close":
                await close_in_time(connection)
            await tdd.end_test(context)
            await works(tdd)
    await works(tdd)


async def close_in_time(connection):
    try:
        await connection.close()
    except (TimeoutError, asyncpg.InterfaceError):
        assert connection.is_closed()


@pytest.mark.usefixtures("soon")
async def test_an_idle_backend_that_does_not_react_costs_one_test_only(make):
    tdd = make(pool_size=1)
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    with Stopped(await idle_pid(tdd)):
        async with asyncio.timeout(HANGS_S):
            with pytest.raises(StatementTimeout, match=r"stuck: the server did not begin .* within 0\.5 s"):
                await tdd.begin_test("stuck", timeout=0.5)
        await works(tdd)
    with Stopped(await idle_pid(tdd)):
        async with asyncio.timeout(HANGS_S):
            await tdd.close()


async def test_cancelled_tests_give_everything_back(tdd):
    async def test():
        async with tdd.test_context("cancelled") as context:
            await context.connection.execute("INSERT INTO item VALUES (1)")
            await context.connection.execute("SELECT pg_sleep(60)")

    for delay in (0.0, 0.001, 0.02, 0.1):
        task = asyncio.create_task(test())
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(HANGS_S):
                await task
        await works(tdd)


async def test_cancelled_twice_while_it_ends(tdd):
    async def test():
        async with tdd.test_context("cancelled"):
            await asyncio.sleep(0)

    for turns in range(30):
        task = asyncio.create_task(test())
        for turn in range(turns):
            await asyncio.sleep(0.0005 if turn % 5 == 0 else 0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await works(tdd)
    await tdd.until_backends(4)
    assert tdd.manager.active_contexts == ()


async def test_no_connection_left_in_the_server(make):
    from psycopg import sql

    tdd = make(pool_size=3)
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    from tests.integration.isolation.conftest import ask

    name = sql.Identifier(tdd.dsn.database).as_string()
    ask(tdd.manager.server.admin_dsn, f"ALTER DATABASE {name} CONNECTION LIMIT 1")
    first = await tdd.begin_test("first")
    with pytest.raises(ServerUnreachable, match=r"no connection left: too many(.|\n)*--tdd-pool-size"):
        await tdd.begin_test("second")
    await tdd.end_test(first)
    ask(tdd.manager.server.admin_dsn, f"ALTER DATABASE {name} CONNECTION LIMIT -1")
    await works(tdd)


async def test_nobody_can_take_all_connections_for_himself(make):
    tdd = make(pool_size=2)
    held = [await tdd.begin_test(f"held {n}") for n in range(2)]
    tdd.wait_only(0.2)
    results = await asyncio.gather(*(tdd.begin_test(f"late {n}") for n in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {PoolExhausted}
    for context in held:
        await tdd.end_test(context)
    tdd.wait_only(HANGS_S)
    await asyncio.gather(*(use(tdd) for _ in range(5)))


async def use(tdd):
    async with tdd.test_context() as context:
        await context.connection.execute("SELECT 1")
