"""`TDDTestContext`: what a test holds, and the contexts of the tests that run now. No I/O."""

from __future__ import annotations

import enum
import itertools
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow.testing.errors import NoTestConnection, SettingsError, StaleContext

if TYPE_CHECKING:
    import asyncpg
    import psycopg
    from psycopg_pool import AsyncConnectionPool

    from dataflow.testing.isolation.connection import TestConnection
    from dataflow.testing.lease.lease import DatabaseLease
    from dataflow.testing.proof.horizon import Horizon
    from dataflow.testing.sandbox.recording import Recorder, Statements

T = TypeVar("T")

ISOLATION_LEVELS = ("READ COMMITTED", "READ UNCOMMITTED", "REPEATABLE READ", "SERIALIZABLE")

# Names are unique among all processes that may use one server.
_PROCESS = secrets.token_hex(3)
_numbers = itertools.count()


class ContextState(enum.Enum):
    """The life of a context, in this order."""

    NEW = "new"
    CONNECTED = "connected"
    IN_TRANSACTION = "in transaction"
    ENDED = "transaction ended"
    RELEASED = "released"


@dataclass(eq=False, repr=False)
class TDDTestContext:
    """What belongs to one test.

    :param test_id: names the test in messages; made up when not given.
    :param isolation_level: of the test's transaction, in SQL's words; case and underscores do not matter.
    :param timeout: seconds that one statement may take; None: as in the settings.
    :param metadata: yours; the library never reads it.
    :ivar database: the test's own, for a test that is isolated by a database and not by a rollback; else None.
    :raises SettingsError: unknown isolation level, or a timeout that is not a positive number.
    """

    test_id: str = ""
    isolation_level: str = "READ COMMITTED"
    timeout: float | None = None
    savepoint_name: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    owner: str | None = None
    state: ContextState = field(default=ContextState.NEW, init=False)
    held_since: float | None = field(default=None, init=False)
    setup_s: float = field(default=0.0, init=False)
    ending: bool = field(default=False, init=False)
    outer: TDDTestContext | None = field(default=None, init=False)
    database: DatabaseLease | None = field(default=None, init=False)
    horizon: Horizon | None = field(default=None, init=False)
    recorder: Recorder | None = field(default=None, init=False)
    _connection: TestConnection | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        token = f"{_PROCESS}{next(_numbers):06x}"
        self.test_id = self.test_id or f"test_{token}"
        self.savepoint_name = self.savepoint_name or f"sp_{token}"
        if self.isolation_level not in ISOLATION_LEVELS:
            self.isolation_level = _isolation_level(self.isolation_level)
        if self.timeout is not None and not _positive(self.timeout):
            raise SettingsError((f"timeout {self.timeout!r}: it must be a number of seconds, more than 0",))

    def __repr__(self) -> str:
        # Short also because `asyncio.Runner` writes the result of each fixture, to no purpose.
        return f"<TDDTestContext of {self.test_id}, {self.state.value}>"

    @property
    def connection(self) -> TestConnection:
        """The test's connection.

        :raises NoTestConnection: the context has none yet.
        :raises StaleContext: the test is over.
        """
        if self._connection is not None:
            return self._connection
        if self.state is ContextState.RELEASED:
            raise StaleContext(
                f"context of {self.test_id}: its connection was given back",
                cause="the context was kept in a global, a wider fixture or a task that outlived the test",
                remedy="take tdd_test_context in the test or fixture that needs the connection",
            )
        raise NoTestConnection(
            f"context of {self.test_id} has no connection yet",
            cause="a TDDTestContext() made by hand starts without one",
            remedy="connection = await get_database_manager().get_test_connection(context), "
            "or use the fixture tdd_test_context",
        )

    async def connect(self, dsn: object = None, **arguments: Any) -> asyncpg.Connection:
        """Another connection of asyncpg, in the transaction of the test; closed with the test at the latest.

        For code that wants one of its own, such as SQLAlchemy's ``create_async_engine("postgresql+asyncpg://",
        async_creator=context.connect)``. Connections of one test take turns. Of a test that is isolated by a
        database it is one to that.

        :param arguments: for `asyncpg.connect`. Those of the address are overlooked, as `dsn` is, so that it may
            stand in for that, also as ``asyncpg.create_pool(connect=context.connect)``.
        :raises WrongEventLoop: another loop than that of the test runs here.
        """
        return await self.connection.sharing.connect(**arguments)

    @property
    def pool(self) -> asyncpg.Pool:
        """A pool of asyncpg, whose connections are as those of `connect`; closed with the test."""
        return self.connection.sharing.pool

    async def connect_psycopg(self, conninfo: str = "", **arguments: Any) -> psycopg.AsyncConnection[Any]:
        """A connection of psycopg, as those of `connect`: in the transaction of the test, or to its database.

        It begins a transaction by itself, unless ``autocommit=True``. For SQLAlchemy:
        ``create_async_engine("postgresql+psycopg://", async_creator=context.connect_psycopg)``.

        :param arguments: for `psycopg.AsyncConnection.connect`, besides the address.
        """
        return await self.connection.sharing.psycopg.connect(conninfo, **arguments)

    @property
    def psycopg_pool(self) -> AsyncConnectionPool[Any]:
        """A pool of psycopg_pool, whose connections are as those of `connect_psycopg`; closed with the test.

        Its ``kwargs`` are arguments for each of them.
        """
        return self.connection.sharing.psycopg.pool

    @property
    def statements(self) -> Statements:
        """What was sent on the connections of the test, also when that is over.

        :raises NoTestConnection: the context has none yet.
        """
        if self.recorder is None:
            _ = self.connection  # says why there is none
            assert self.recorder is not None, "with a connection comes a recorder"
        return self.recorder.statements

    def attach(self, connection: TestConnection, recorder: Recorder) -> None:
        """:param recorder: is told from now on what is sent."""
        self._connection = connection
        self.recorder = recorder
        connection.physical.record(recorder)
        self.take()
        self.state = ContextState.CONNECTED

    def take(self) -> None:
        """From now on it holds a connection."""
        self.held_since = monotonic()

    def detach(self) -> None:
        self._connection = None
        self.state = ContextState.RELEASED

    @property
    def is_over(self) -> bool:
        return self.state is ContextState.RELEASED

    @property
    def holder(self) -> str:
        """Who holds the connection: the context's name, and what took it if that is called otherwise."""
        return self.test_id if self.owner in (None, self.test_id) else f"{self.test_id} ({self.owner})"

    @property
    def held_s(self) -> float:
        """Seconds since the context got its connection; 0 before."""
        return 0.0 if self.held_since is None else monotonic() - self.held_since

    @property
    def last_statement(self) -> str | None:
        """The last statement on the connection, shortened, without passwords."""
        return self._connection.log.last_shown if self._connection is not None else None

    def describe(self) -> str:
        """One line for messages: holder, since when, last statement."""
        last = self.last_statement
        statement = f"last statement: {last}" if last else "no statement yet"
        return f"{self.holder}, held for {self.held_s:.1f} s, {statement}"


def _isolation_level(text: str) -> str:
    level = " ".join(str(text).replace("_", " ").upper().split())
    if level not in ISOLATION_LEVELS:
        raise SettingsError((f"isolation level {text!r}: it must be one of {', '.join(ISOLATION_LEVELS)}",))
    return level


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def named(held: Iterable[tuple[str, T]]) -> dict[str, T]:
    """By name; a second one of the same name is ``name#2``."""
    found: dict[str, T] = {}
    for wanted, each in held:
        name, number = wanted, 1
        while name in found:
            number += 1
            name = f"{wanted}#{number}"
        found[name] = each
    return found


_current: ContextVar[TDDTestContext | None] = ContextVar("dataflow_tdd_context", default=None)


def get_test_context() -> TDDTestContext | None:
    """The context of the running test, or None outside of one. Tasks inherit it; other tests never see it."""
    return _current.get()


def set_test_context(context: TDDTestContext) -> None:
    """Make `context` the current one of this task."""
    _current.set(context)


def clear_test_context() -> None:
    """Forget the current context of this task."""
    _current.set(None)


def enter(context: TDDTestContext) -> None:
    """Make `context` the current one, inside of that which was it before."""
    context.outer = _running(_current.get())
    _current.set(context)


def leave(context: TDDTestContext) -> None:
    """If it is the current one, that around it becomes it again."""
    if _current.get() is context:
        _current.set(_running(context.outer))


def _running(context: TDDTestContext | None) -> TDDTestContext | None:
    """The context, or the nearest one around it that is not over: they need not end in order."""
    while context is not None and context.is_over:
        context = context.outer
    return context
