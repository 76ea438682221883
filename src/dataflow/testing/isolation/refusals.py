"""What a test's connection says when something does not go on. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow.testing.errors import (
    ConnectionLost,
    DatabaseNotClean,
    StatementTimeout,
    TransactionEnded,
    WrongEventLoop,
)
from dataflow.testing.isolation.statements import StatementLog, shown

if TYPE_CHECKING:
    import asyncpg


def transaction_ended(test_id: str, last: str | None = None) -> TransactionEnded:
    """The server says that the transaction is over, though no statement that was seen has ended it.

    :param last: its last statement, if that is known.
    """
    statement = f" (last statement: {last})" if last is not None else ""
    return TransactionEnded(
        f"{test_id}: it left the transaction that isolates it{statement}",
        cause="a COMMIT or ROLLBACK that this library did not see",
        remedy="write transactions as `async with connection.transaction():`",
    )


def not_clean(problem: str) -> DatabaseNotClean:
    return DatabaseNotClean(
        f"the database may hold rows of an earlier test: {problem}",
        cause="that test left the transaction that isolates it",
        remedy="mend or deselect that test and run again; the embedded server gives each run a new "
        "database, in one of your own look for the rows",
    )


def lost(test_id: str, log: StatementLog) -> ConnectionLost:
    return ConnectionLost(
        f"the connection of {test_id} is closed",
        cause=f"the test closed it, or the server ended it (last statement: {log.last_shown or 'none'})",
        remedy="the next test gets a new one; look at the server's log if nobody closed this one",
    )


def timed_out(test_id: str, query: str, after_s: float, limit_s: float) -> StatementTimeout:
    return StatementTimeout(
        f"{test_id}: cancelled after {after_s:.1f} s (limit {limit_s:g} s): {shown(query)}",
        cause="a slow query, or a lock that another connection holds",
        remedy="make it faster, look for the holder of the lock in pg_stat_activity, or raise the limit",
        option="DATAFLOW_TDD_TIMEOUT, --tdd-timeout, or timeout= of the context",
    )


def wrong_loop(test_id: str) -> WrongEventLoop:
    return WrongEventLoop(
        f"the connection of {test_id} was used in another event loop than its own",
        cause="test and fixture run in loops of different scope",
        remedy="give both the same loop_scope: @pytest.mark.asyncio(loop_scope=…) and "
        "@pytest_asyncio.fixture(loop_scope=…)",
        option="asyncio_default_test_loop_scope, asyncio_default_fixture_loop_scope",
    )


def other_loop(test_id: str) -> WrongEventLoop:
    return WrongEventLoop(
        f"a connection or pool of {test_id} was used in another event loop than that of the test",
        cause="a client such as TestClient runs the application in a loop and a thread of its own, or test and "
        "fixture run in loops of different scope",
        remedy="call the application in the loop of the test, by AsyncClient with an ASGITransport; give test "
        "and fixture the same loop_scope",
    )


def limit_reached(limit_s: float, query: str | None) -> str:
    """What a driver is told of a statement that ran past the limit of its test."""
    statement = f": {shown(query)}" if query is not None else ""
    return (
        f"cancelled after {limit_s:g} s, the limit of a statement of a test{statement}\n"
        "  cause: a slow query, or a lock that another connection holds\n"
        "  way out: make it faster, look for the holder of the lock in pg_stat_activity, or raise the limit "
        "(DATAFLOW_TDD_TIMEOUT, --tdd-timeout)"
    )


def explain_abort(error: asyncpg.InFailedSQLTransactionError, test_id: str, first: str | None) -> None:
    """Add what the server does not say; it is the second error that people see, and not the first.

    :param first: the statement that failed first, if known.
    """
    statement = f" since this statement failed: {shown(first)}" if first is not None else ""
    error.add_note(
        f"the transaction of {test_id} is aborted{statement}\n"
        "  way out: put what may fail into `async with connection.transaction():`; the test goes on behind it"
    )
