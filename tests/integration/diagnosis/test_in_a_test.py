"""Pool, transaction and recovery, looked at from inside a test on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg
import psutil
import pytest
from tests.integration.diagnosis.conftest import UseUrl

from dataflow.testing.diagnosis.pool import Verdict, diagnose_connection_pool
from dataflow.testing.diagnosis.recovery import Outcome, Recovery, recover_from_savepoint_error
from dataflow.testing.diagnosis.transaction import State, TransactionDiagnosis, diagnose_transaction
from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import DatabaseNotClean, TransactionEnded
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.runtime import Runtime

T = TypeVar("T")

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def server(by_password: Dsn, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, use_url: UseUrl) -> None:
    """These tests need any server; the one that runs already is the cheapest."""
    use_url(by_password.url())
    monkeypatch.setenv("DATAFLOW_TDD_POOL_SIZE", "2")


@asynccontextmanager
async def a_test(runtime: Runtime, test_id: str = "t") -> AsyncIterator[TDDTestContext]:
    """What the fixture gives, closed for good at the end."""
    try:
        async with runtime.test_context(test_id) as context:
            yield context
    finally:
        await runtime.close()


async def fail(context: TDDTestContext) -> None:
    with pytest.raises(asyncpg.PostgresError):
        await context.connection.execute("SELECT 1/0")


async def test_without_a_connection_there_is_no_pool_and_none_is_made(runtime: Runtime) -> None:
    pool = await diagnose_connection_pool()
    assert pool.verdict is Verdict.NO_POOL
    assert pool.sizes is None
    assert not runtime.started


async def test_a_pool_with_a_free_connection(runtime: Runtime) -> None:
    async with a_test(runtime, "test_a") as context:
        await context.connection.execute("SELECT 'what I did last'")
        pool = await diagnose_connection_pool()
        assert pool.verdict is Verdict.AVAILABLE
        assert pool.sizes is not None
        assert (pool.sizes.size, pool.sizes.max_size, pool.sizes.idle) == (1, 2, 0)
        (holder,) = pool.holders
        assert holder.name == "test_a"
        assert holder.last_statement == "SELECT 'what I did last'"
        assert not holder.beside


async def test_an_exhausted_pool_names_the_holders(runtime: Runtime) -> None:
    async with a_test(runtime, "test_a"):
        async with runtime.test_context("test_b"):
            pool = await diagnose_connection_pool()
            assert not pool
            assert pool.verdict is Verdict.EXHAUSTED
            assert {holder.name for holder in pool.holders} == {"test_a", "test_b"}


async def test_a_connection_beside_the_pool_is_told_apart(runtime: Runtime) -> None:
    physical = await runtime.manager.open_connection(TDDTestContext("test_c"))
    try:
        async with a_test(runtime, "test_a"):
            beside = {holder.name: holder.beside for holder in (await diagnose_connection_pool()).holders}
            assert beside == {"test_a": False, "test_c": True}
    finally:
        physical.terminate()


async def test_an_open_transaction_and_its_savepoints(runtime: Runtime) -> None:
    async with a_test(runtime) as context:
        before = await diagnose_transaction(context.connection)
        assert before.state is State.OPEN
        assert before.facts.transaction_id is None
        await context.connection.execute("CREATE TEMP TABLE t (i int)")
        await context.connection.execute("BEGIN")
        await context.connection.execute("SAVEPOINT mine")
        found = await diagnose_transaction(context.connection)
        assert found
        assert (found.facts.transaction_id or "").isdigit()
        assert found.facts.isolation_level == "read committed"
        assert found.facts.savepoints == ("mine",)
        assert found.facts.test_savepoint == context.savepoint_name
        assert context.last_statement == "SAVEPOINT mine"  # the question leaves no trace in the test's log


async def test_an_aborted_transaction(runtime: Runtime) -> None:
    async with a_test(runtime) as context:
        await context.connection.execute("BEGIN")
        await fail(context)
        found = await diagnose_transaction(context.connection)
        assert not found
        assert found.state is State.ABORTED
        assert found.facts.test_savepoint == context.savepoint_name


async def test_a_busy_connection(runtime: Runtime, by_password: Dsn) -> None:
    other = await asyncpg.connect(**by_password.asyncpg_arguments())
    async with a_test(runtime) as context:
        await other.execute("SELECT pg_advisory_lock(1)")
        waiting = asyncio.create_task(context.connection.execute("SELECT pg_advisory_lock(1)"))
        await asyncio.sleep(0)  # it is sent
        found = await diagnose_transaction(context.connection)
        recovery = await recover_from_savepoint_error(context.connection, context)
        await other.close()
        await waiting
        assert found.state is State.BUSY
        assert recovery.outcome is Outcome.REFUSED
        assert "another" in str(recovery)
        assert (await diagnose_transaction(context.connection)).state is State.OPEN


async def ends_badly(runtime: Runtime, body: Callable[[TDDTestContext], Awaitable[T]]) -> T:
    """What `body` returns, of a test at whose end it turns out that it left its transaction.

    Nothing is asserted in `body`: the error of the end would take the place of the assertion's.
    """
    results: list[T] = []

    async def run() -> None:
        async with runtime.test_context("t") as context:
            results.append(await body(context))

    with pytest.raises(TransactionEnded):
        await run()
    (result,) = results
    return result


async def test_a_connection_whose_test_left_its_transaction(runtime: Runtime) -> None:
    async def leave(context: TDDTestContext) -> TransactionDiagnosis:
        await context.connection.physical.ask("ROLLBACK")
        return await diagnose_transaction(context.connection)

    found = await ends_badly(runtime, leave)
    await runtime.close()
    assert found.state is State.IDLE
    assert not found


async def test_closed_stale_and_plain_connections(runtime: Runtime, by_password: Dsn) -> None:
    async with a_test(runtime) as context:
        kept = context.connection
        await kept.close()
        assert (await diagnose_transaction(kept)).state is State.CLOSED
    stale = await diagnose_transaction(kept)
    assert stale.state is State.UNREACHABLE
    assert "which is over" in str(stale)
    plain = await asyncpg.connect(**by_password.asyncpg_arguments())
    try:
        assert await diagnose_transaction(plain)
        async with plain.transaction(isolation="serializable"):
            found = await diagnose_transaction(plain)
            assert (found.state, found.facts.isolation_level) == (State.OPEN, "serializable")
            assert found.facts.savepoints is None
    finally:
        await plain.close()


async def test_a_connection_of_another_loop_is_not_touched(runtime: Runtime) -> None:
    async with a_test(runtime) as context:
        connection = context.connection
        found = await asyncio.to_thread(lambda: asyncio.run(diagnose_transaction(connection)))
        assert found.state is State.UNREACHABLE
        assert "another event loop" in str(found)
        assert await connection.fetchval("SELECT 1") == 1


async def test_recovery_from_an_aborted_transaction_goes_to_the_start_of_the_test(runtime: Runtime) -> None:
    async with a_test(runtime) as context:
        await context.connection.execute("CREATE TABLE left_over (i int)")
        await context.connection.execute("BEGIN")
        await context.connection.execute("SAVEPOINT mine")
        await fail(context)
        recovery = await recover_from_savepoint_error(context.connection, context)
        assert recovery
        assert recovery.outcome is Outcome.SAVEPOINT
        assert await context.connection.fetchval("SELECT to_regclass('left_over')") is None
        assert context.connection.log.savepoints == []
        assert await diagnose_transaction(context.connection)


async def test_recovery_without_the_savepoint_stays_isolated_and_is_reported_at_the_end(runtime: Runtime) -> None:
    async def lose_the_savepoint(context: TDDTestContext) -> tuple[Recovery, TransactionDiagnosis]:
        # Around the sandbox, which would refuse it.
        await context.connection.physical.ask(f"RELEASE SAVEPOINT {context.savepoint_name}")
        await fail(context)
        recovery = await recover_from_savepoint_error(context.connection, context)
        await context.connection.execute("CREATE TABLE escaped (i int)")
        return recovery, await diagnose_transaction(context.connection)

    recovery, found = await ends_badly(runtime, lose_the_savepoint)
    await runtime.close()
    assert recovery
    assert recovery.outcome is Outcome.TRANSACTION
    assert found.state is State.OPEN
    async with a_test(runtime) as context:  # it is proven that nothing of it was committed
        assert await context.connection.fetchval("SELECT to_regclass('escaped')") is None


async def test_recovery_never_hides_that_something_was_committed(runtime: Runtime, by_password: Dsn) -> None:
    async def commit(context: TDDTestContext) -> Recovery:
        await context.connection.execute("CREATE TABLE committed (i int)")
        await context.connection.physical.ask(
            "; ".join([*context.connection.physical.session.settled(), "COMMIT"])
        )
        return await recover_from_savepoint_error(context.connection, context)

    async def next_test() -> None:
        async with runtime.test_context("next"):
            pass

    try:
        assert (await ends_badly(runtime, commit)).outcome is Outcome.TRANSACTION
        with pytest.raises(DatabaseNotClean):
            await next_test()
        await runtime.close()
        with pytest.raises(DatabaseNotClean):  # giving a server of one's own back does not make it clean
            await next_test()
    finally:
        plain = await asyncpg.connect(**by_password.asyncpg_arguments())
        await plain.execute("DROP TABLE committed")
        await plain.close()
        await runtime.close()


async def terminate_backend(context: TDDTestContext, dsn: Dsn) -> None:
    backend = await context.connection.fetchval("SELECT pg_backend_pid()")
    plain = await asyncpg.connect(**dsn.asyncpg_arguments())
    await plain.execute("SELECT pg_terminate_backend($1)", backend)
    await plain.close()


async def test_a_session_that_the_server_ended_is_broken(runtime: Runtime, by_password: Dsn) -> None:
    async with a_test(runtime) as context:
        await terminate_backend(context, by_password)
        found = await diagnose_transaction(context.connection)
        assert found.state in (State.BROKEN, State.CLOSED)  # the news may have arrived before the question
        assert "new" in (found.failed[0].remedy or "")


async def test_recovery_of_a_terminated_backend_closes_the_connection(runtime: Runtime, by_password: Dsn) -> None:
    async with a_test(runtime) as context:
        await terminate_backend(context, by_password)
        recovery = await recover_from_savepoint_error(context.connection, context)
        assert not recovery
        assert recovery.outcome is Outcome.BROKEN
        assert context.connection.is_closed()
        assert "end this test" in str(recovery)


async def test_recovery_of_a_backend_that_does_not_react_ends_in_time(runtime: Runtime) -> None:
    async with a_test(runtime) as context:
        context.timeout = 0.3
        backend = psutil.Process(await context.connection.fetchval("SELECT pg_backend_pid()"))
        backend.suspend()
        try:
            async with asyncio.timeout(40):
                recovery = await recover_from_savepoint_error(context.connection, context)
        finally:
            backend.resume()
        assert recovery.outcome is Outcome.BROKEN
        assert context.connection.is_closed()


async def test_recovery_refuses_what_it_cannot_isolate(runtime: Runtime, by_password: Dsn) -> None:
    plain = await asyncpg.connect(**by_password.asyncpg_arguments())
    try:
        async with a_test(runtime) as context:
            foreign = await recover_from_savepoint_error(plain, context)
            assert foreign.outcome is Outcome.REFUSED
            assert "not the connection of the context" in str(foreign)
            async with runtime.test_context("other") as other:
                mixed_up = await recover_from_savepoint_error(context.connection, other)
                assert mixed_up.outcome is Outcome.REFUSED
            begun = TDDTestContext("bare")
            connection = await runtime.manager.get_test_connection(begun)
            refused = await recover_from_savepoint_error(connection, begun)
            assert refused.outcome is Outcome.REFUSED
            assert "begin_test_transaction" in str(refused)
            await runtime.manager.cleanup_test_connection(begun)
            stale = await recover_from_savepoint_error(connection, begun)
            assert stale.outcome is Outcome.REFUSED
    finally:
        await plain.close()
