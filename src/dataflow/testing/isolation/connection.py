"""The two sides of a test's connection: the physical one, and the handle that a test gets.

The handle (`TestConnection`) lives as long as the test. It behaves as `asyncpg.Connection`, and adds what
makes a test safe: it fails when it is used after the test or in another loop, it never lets the outer
transaction be committed, it measures, and it remembers what must not reach the next test.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg

from dataflow.testing.errors import (
    ConnectionLost,
    StaleContext,
    StatementTimeout,
    TransactionEnded,
    WrongEventLoop,
)
from dataflow.testing.isolation.context import ContextState, TDDTestContext
from dataflow.testing.isolation.statements import StatementLog, shown


class PhysicalConnection(asyncpg.Connection):
    """A connection to the server; it serves one test after the other.

    `rewrite` changes the text of the next statement, once. With it our SAVEPOINT travels in the same round
    trip as the BEGIN that asyncpg's own transaction object sends, which keeps `connection.transaction()`
    aware of the outer transaction.
    """

    __slots__ = ("rewrite",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rewrite: Callable[[str], str] | None = None

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if self.rewrite is not None:
            query, self.rewrite = self.rewrite(query), None
        return await super().execute(query, *args, timeout=timeout)


# What these leave behind in the client outlives a rollback, so the connection is not used again afterwards.
_CLIENT_STATE = frozenset(
    {
        "add_listener",
        "add_log_listener",
        "add_query_logger",
        "add_termination_listener",
        "reset_type_codec",
        "set_builtin_type_codec",
        "set_type_codec",
        "query_logger",
    }
)
_STATEMENT_METHODS = (
    "execute",
    "executemany",
    "fetch",
    "fetchrow",
    "fetchval",
    "fetchmany",
    "copy_from_query",
)
_COPY_METHODS = ("copy_from_table", "copy_to_table", "copy_records_to_table")


if TYPE_CHECKING:  # for type checkers it is what it stands in for
    _Connection = asyncpg.Connection
else:
    _Connection = object


class TestConnection(_Connection):
    """A test's handle of its connection; every method of `asyncpg.Connection` works on it.

    :param limit: seconds that the physical connection allows a statement; the context's timeout and the
        call's go before it.
    """

    __test__ = False

    def __init__(self, physical: PhysicalConnection, context: TDDTestContext, limit: float) -> None:
        self._physical: PhysicalConnection | None = physical
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._limit = limit
        self._reusable = True
        self.log = StatementLog()

    def detach(self) -> tuple[PhysicalConnection, bool]:
        """End the handle: give back the physical connection, and whether another test may use it."""
        physical = self.physical
        self._physical = None
        return physical, self._reusable and not self.log.session_changed and not physical.is_closed()

    @property
    def attached(self) -> bool:
        return self._physical is not None

    @property
    def physical(self) -> PhysicalConnection:
        if self._physical is None:
            raise StaleContext(
                f"this connection belonged to {self._context.test_id}, which is over",
                cause="it was kept in a global, a cache or a task that outlived the test",
                remedy="take the connection from tdd_test_context in each test; await or cancel your tasks",
            )
        return self._physical

    def forbid_reuse(self) -> None:
        """Close the connection at the end of the test instead of passing it on."""
        self._reusable = False

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the connection, as production code may. The next test gets another one."""
        self._reusable = False
        if self._physical is not None:
            await self._physical.close(timeout=timeout)

    def terminate(self) -> None:
        self._reusable = False
        if self._physical is not None:
            self._physical.terminate()

    def is_closed(self) -> bool:
        return self._physical is None or self._physical.is_closed()

    async def prepare(self, query: str, **kwargs: Any) -> Any:
        """Prepare a statement. What it takes when it runs is not measured."""
        physical = self._usable()
        read = self.log.started(query)
        in_transaction = self._context.state is ContextState.IN_TRANSACTION
        if in_transaction and (read.commits is not None or read.rolls_back):
            raise _commit_refused(self._context, f"a prepared {read.commits or 'ROLLBACK'}")
        return await physical.prepare(query, **kwargs)

    async def reset(self, *, timeout: float | None = None) -> None:
        """Undo all that the test did on this connection so far; the isolating transaction stays open."""
        await self._run("execute", "ROLLBACK", (), {} if timeout is None else {"timeout": timeout})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _CLIENT_STATE:
            self._reusable = False
        return getattr(self.physical, name)

    def __repr__(self) -> str:
        state = "in use" if self._physical is not None else "over"
        return f"<TestConnection of {self._context.test_id}, {state}>"

    async def _run(self, name: str, query: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        physical = self._usable()
        read = self.log.started(query)
        if read.commits is not None and self._context.state is ContextState.IN_TRANSACTION:
            raise _commit_refused(self._context, read.commits)
        if read.rolls_back and self._context.state is ContextState.IN_TRANSACTION:
            query = _as_savepoint_rollback(self._context, query)
        if self._context.timeout is not None:
            kwargs.setdefault("timeout", self._context.timeout)
        started = perf_counter()
        failed = True
        try:
            result = await getattr(physical, name)(query, *args, **kwargs)
            failed = False
            return result
        except TimeoutError as error:
            raise self._timed_out(query, started, kwargs.get("timeout") or self._limit) from error
        finally:
            self.log.finished(read, started, failed=failed)

    def _usable(self) -> PhysicalConnection:
        physical = self._physical if self._physical is not None else self.physical
        if asyncio.get_running_loop() is not self._loop:
            raise WrongEventLoop(
                f"the connection of {self._context.test_id} was used in another event loop than its own",
                cause="test and fixture run in loops of different scope",
                remedy="give both the same loop_scope: @pytest.mark.asyncio(loop_scope=…) and "
                "@pytest_asyncio.fixture(loop_scope=…)",
                option="asyncio_default_test_loop_scope, asyncio_default_fixture_loop_scope",
            )
        if physical.is_closed():
            raise ConnectionLost(
                f"the connection of {self._context.test_id} is closed",
                cause="the test closed it, or the server ended it (last statement: "
                f"{self.log.last_shown or 'none'})",
                remedy="the next test gets a new one; look at the server's log if nobody closed this one",
            )
        return physical

    def _timed_out(self, query: str, started: float, limit: float) -> StatementTimeout:
        return StatementTimeout(
            f"{self._context.test_id}: cancelled after {perf_counter() - started:.1f} s "
            f"(limit {limit:g} s): {shown(query)}",
            cause="a slow query, or a lock that another connection holds",
            remedy="make it faster, look for the holder of the lock in pg_stat_activity, or raise the limit",
            option="DATAFLOW_TDD_TIMEOUT, --tdd-timeout, or timeout= of the context",
        )


def _statement_method(name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(asyncpg.Connection, name))
    async def method(self: TestConnection, query: str, *args: Any, **kwargs: Any) -> Any:
        return await self._run(name, query, args, kwargs)

    return method


def _copy_method(name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(asyncpg.Connection, name))
    async def method(self: TestConnection, table_name: str, **kwargs: Any) -> Any:
        physical = self._usable()
        read = self.log.started(f"COPY {table_name}")
        started = perf_counter()
        if self._context.timeout is not None:
            kwargs.setdefault("timeout", self._context.timeout)
        try:
            return await getattr(physical, name)(table_name, **kwargs)
        except TimeoutError as error:
            limit = kwargs.get("timeout") or self._limit
            raise self._timed_out(f"COPY {table_name}", started, limit) from error
        finally:
            self.log.finished(read, started, failed=False)

    return method


for _name in _STATEMENT_METHODS:
    if hasattr(asyncpg.Connection, _name):  # fetchmany came with asyncpg 0.30
        setattr(TestConnection, _name, _statement_method(_name))
for _name in _COPY_METHODS:
    setattr(TestConnection, _name, _copy_method(_name))


def _commit_refused(context: TDDTestContext, words: str) -> TransactionEnded:
    return TransactionEnded(
        f"{context.test_id}: {words} was refused",
        cause="it would end the transaction that isolates this test, and leave its rows to the next tests",
        remedy="write transactions as `async with connection.transaction():`, which nests; nothing was sent, "
        "so the test may go on",
    )


def _as_savepoint_rollback(context: TDDTestContext, query: str) -> str:
    """ROLLBACK undoes the test's work so far, and keeps the test in its transaction."""
    if ";" in query.strip().rstrip(";"):
        raise TransactionEnded(
            f"{context.test_id}: ROLLBACK inside a string of several statements was refused",
            cause="it would end the transaction that isolates this test",
            remedy="send ROLLBACK alone, or use `async with connection.transaction():`",
        )
    return f"ROLLBACK TO SAVEPOINT {context.savepoint_name}"
