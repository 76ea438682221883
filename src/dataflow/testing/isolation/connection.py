"""The handle of a connection that a test gets.

The handle (`TestConnection`) lives as long as the test. It behaves as `asyncpg.Connection`, and adds what
makes a test safe: it fails when it is used after the test or in another loop, it never lets the outer
transaction be committed, it measures, and it remembers what must not reach the next test.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg

from dataflow.testing.errors import ConnectionLost, StaleContext, StatementTimeout
from dataflow.testing.isolation.context import ContextState, TDDTestContext
from dataflow.testing.isolation.physical import CLOSE_TIMEOUT_S, SETTLE_S, PhysicalConnection
from dataflow.testing.isolation.prepared import told
from dataflow.testing.isolation.refusals import explain_abort, lost, timed_out, transaction_ended, wrong_loop
from dataflow.testing.isolation.shared import COPY_METHODS, STATEMENT_METHODS
from dataflow.testing.isolation.sharing import Sharing, Terms, sharing_of
from dataflow.testing.isolation.sql import Script, quote_identifier
from dataflow.testing.isolation.statements import StatementLog
from dataflow.testing.sandbox.client import TURN_LIMIT_S

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

if TYPE_CHECKING:  # for type checkers it is what it stands in for
    _Connection = asyncpg.Connection
else:  # with this base `isinstance(…, asyncpg.Connection)` holds, as it does for the connections of a pool
    _Connection = asyncpg.connection._ConnectionProxy


class TestConnection(_Connection):
    """A test's handle of its connection; every method of `asyncpg.Connection` works on it.

    :param limit: seconds that the physical connection allows a statement; the context's timeout and the
        call's go before it.
    :ivar opened: the physical connection was opened for this test, and had not served another one.
    :ivar backend_pid: process id of the server's process for it.
    """

    __test__ = False

    def __init__(self, physical: PhysicalConnection, context: TDDTestContext, limit: float) -> None:
        self._physical: PhysicalConnection | None = physical
        self._retired: PhysicalConnection | None = None
        physical.handle = self
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._limit = limit
        self._reusable = True
        self._sharing: Sharing | None = None
        self._around: set[str] = set()  # savepoints of the test's transaction itself
        self.opened = False
        self.backend_pid = physical.get_server_pid()
        self.log = StatementLog(context.savepoint_name)
        if context.timeout is not None:
            physical.limit_statements(context.timeout)

    def retire(self) -> PhysicalConnection:
        """End the handle, and all statements, cursors and transaction blocks that were made through it.

        A task that goes on must not send anything between the end of the test's transaction and the next test.
        """
        physical = self.physical
        if self._sharing is not None:
            self._sharing.end()
        if physical.relay is not None:
            physical.relay.wait_no_more()
        self._physical, self._retired = None, physical
        physical.handle = None
        physical.record(None)
        physical.disown()
        if self._context.timeout is not None:
            physical.limit_statements(None)
        return physical

    def detach(self) -> tuple[PhysicalConnection, bool]:
        """Give back the physical connection, and whether another test may use it."""
        physical = self._retired if self._retired is not None else self.retire()
        self._retired = None
        return physical, self._reusable and not self.log.session_changed and not physical.is_closed()

    @property
    def attached(self) -> bool:
        return self._physical is not None or self._retired is not None

    @property
    def physical(self) -> PhysicalConnection:
        if self._physical is None:
            raise StaleContext(
                f"this connection belonged to {self._context.test_id}, which is over",
                cause="it was kept in a global, a cache or a task that outlived the test",
                remedy="take the connection from tdd_test_context in each test; await or cancel your tasks",
            )
        return self._physical

    @property
    def test_id(self) -> str:
        return self._context.test_id

    @property
    def sharing(self) -> Sharing:
        """Other connections: in the transaction of the test, or to the database that it has.

        Also for a thread, which may pass them on to the loop of the test.
        """
        physical = self._open()
        if self._sharing is None:
            limit_s = self._context.timeout or self._limit
            terms = Terms(self.test_id, self._loop, min(self._limit / 2, TURN_LIMIT_S), limit_s)
            self._sharing = sharing_of(physical, self._context.database, terms)
        return self._sharing

    @property
    def in_its_loop(self) -> bool:
        return asyncio.get_running_loop() is self._loop

    def forbid_reuse(self) -> None:
        """Close the connection at the end of the test instead of passing it on."""
        self._reusable = False

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the connection, as production code may. The next test gets another one."""
        self._reusable = False
        if self._physical is None:
            return
        limit = CLOSE_TIMEOUT_S if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):  # older versions of asyncpg do not keep to their limit
                await self._physical.close(timeout=limit)
        finally:
            self.terminate()

    def terminate(self) -> None:
        self._reusable = False
        if self._physical is not None:
            self._physical.terminate()

    def is_closed(self) -> bool:
        return self._physical is None or self._physical.is_closed()

    async def prepare(self, query: str, **kwargs: Any) -> Any:
        """Prepare a statement. What it takes when it runs is not measured."""
        physical = self._usable()
        if kwargs.get("name"):
            self._reusable = False  # the name would be taken in the next test
        read = self._started_unmeasured(query)
        started = perf_counter()
        try:
            return told(await physical.prepare(query, **kwargs))
        except TimeoutError as error:
            raise self.timed_out(query, started, kwargs.get("timeout")) from error
        finally:
            self.log.finished(read, started, failed=True)  # it has not run yet, so no savepoint was set

    def cursor(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """A cursor. What it takes is not measured."""
        physical = self._usable()
        read = self._started_unmeasured(query)
        self.log.finished(read, perf_counter(), failed=True)
        return told(physical.cursor(query, *args, **kwargs))

    def transaction(self, **kwargs: Any) -> Any:
        """A transaction block."""
        physical = self._usable()
        if self._context.state is not ContextState.IN_TRANSACTION:
            self.log.outside = True
        return physical.transaction(**kwargs)

    async def reset(self, *, timeout: float | None = None) -> None:
        """As asyncpg's: end the transaction of the code under test, and undo what it did to the session."""
        await self._usable().reset(timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _CLIENT_STATE:
            self._reusable = False
        return getattr(self.physical, name)

    def __repr__(self) -> str:
        state = "in use" if self._physical is not None else "over"
        return f"<TestConnection of {self._context.test_id}, {state}>"

    async def _run(
        self, name: str, query: str, args: tuple[Any, ...], kwargs: dict[str, Any], table: str | None = None
    ) -> Any:
        """:param table: what the method takes in place of a query, which then only tells what it does."""
        __tracebackhide__ = True
        physical = self._usable()
        read = self.log.started(query)
        if self._context.state is not ContextState.IN_TRANSACTION:
            self.log.outside = True
        else:
            if not physical.isolated:
                raise transaction_ended(self.test_id, self.log.last_shown or "none")
            if read.controls_transaction and self._is_around(read):
                return await self.around(query)
        if self._context.timeout is not None:
            kwargs.setdefault("timeout", self._context.timeout)
        if physical.cancelling:
            await self._settled(physical)
        started = perf_counter()
        failed = True
        try:
            result = await getattr(physical, name)(query if table is None else table, *args, **kwargs)
            failed = False
            self.log.failed = None
            return result
        except TimeoutError as error:
            self.log.failed = query
            raise self.timed_out(query, started, kwargs.get("timeout")) from error
        except asyncpg.InternalClientError as error:
            raise lost(self.test_id, self.log) from error  # the server's last words came while nobody asked
        except asyncpg.PostgresError as error:
            if isinstance(error, asyncpg.InFailedSQLTransactionError):
                explain_abort(error, self._context.test_id, self.log.failed)
            else:
                self.log.failed = query
            raise
        finally:
            self.log.finished(read, started, failed=failed)

    def _is_around(self, read: Script) -> bool:
        """It is about a savepoint of the test's own transaction, which is around that of the code under test."""
        if len(read.heads) != 1 or not read.savepoint_changes:
            return False
        ((change, name),) = read.savepoint_changes
        if (change, name) == ("rollback", self._context.savepoint_name):
            return True
        return change != "set" and name in self._around and not self.is_in_transaction()

    async def around(self, sql: str) -> str:
        """Run a statement about savepoints in the test's transaction itself.

        What the code under test has begun is over when it goes back.
        """
        physical = self._usable()
        session = physical.session
        tag = sql.split(maxsplit=1)[0].upper()
        goes_back = tag == "ROLLBACK"
        await physical.ask("; ".join([*([] if goes_back else session.settled()), sql]), self._context.timeout)
        if goes_back:
            session.enter()
            physical.forget_transactions()
            await physical.hear()
        self.log.followed(sql)
        if tag == "SAVEPOINT":
            self._around.add(self.log.savepoints[-1])
        return tag

    def _started_unmeasured(self, query: str) -> Script:
        read = self.log.started(query)
        if self._context.state is not ContextState.IN_TRANSACTION:
            self.log.outside = True
        elif not self.physical.isolated:
            raise transaction_ended(self.test_id, self.log.last_shown or "none")
        return read

    async def _settled(self, physical: PhysicalConnection) -> None:
        try:
            await physical.settle()
        except TimeoutError:
            raise ConnectionLost(
                f"the connection of {self._context.test_id} was closed: the server did not react within "
                f"{SETTLE_S:g} s to the cancellation of: {self.log.last_shown}",
                cause="its process is stopped, or the machine is overloaded",
                remedy="the next test gets a new connection",
            ) from None

    def _usable(self) -> PhysicalConnection:
        physical = self._physical if self._physical is not None else self.physical
        if asyncio.get_running_loop() is not self._loop:
            raise wrong_loop(self.test_id)
        if physical.is_closed():
            raise lost(self.test_id, self.log)
        return physical

    def _open(self) -> PhysicalConnection:
        if self.physical.is_closed():
            raise lost(self.test_id, self.log)
        return self.physical

    def timed_out(self, query: str, started: float, given: float | None) -> StatementTimeout:
        """What to raise for a statement that ran past its limit. :param given: of the call itself, in seconds."""
        return timed_out(
            self.test_id, query, perf_counter() - started, given or self._context.timeout or self._limit
        )


def _statement_method(name: str) -> Callable[..., Any]:
    first = list(inspect.signature(getattr(asyncpg.Connection, name)).parameters)[1]  # "query" or "command"

    @functools.wraps(getattr(asyncpg.Connection, name))
    async def method(self: TestConnection, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if not args and first not in kwargs:
            raise TypeError(f"{name}() misses its argument {first!r}")
        query, *rest = args if args else (kwargs.pop(first),)
        return await self._run(name, query, tuple(rest), kwargs)

    return method


def _copy_method(name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(asyncpg.Connection, name))
    async def method(self: TestConnection, table_name: str, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return await self._run(name, f"COPY {quote_identifier(table_name)}", (), kwargs, table_name)

    return method


for _name in STATEMENT_METHODS:
    setattr(TestConnection, _name, _statement_method(_name))
for _name in COPY_METHODS:
    setattr(TestConnection, _name, _copy_method(_name))
