"""More connections in the transaction of a test. Each is one to its driver, and all share one session.

They take turns: a statement, or a transaction that one of them has begun, goes on alone, and the others wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from dataflow.testing.errors import PoolExhausted
from dataflow.testing.isolation.plain_pool import defaults
from dataflow.testing.isolation.relay import CancelsItsOwn, Patience, Relay
from dataflow.testing.masking import mask
from dataflow.testing.missing import importing
from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.client import MOST_IN_A_POOL, Client

log = logging.getLogger("dataflow.testing")

if TYPE_CHECKING:
    from dataflow.testing.isolation.physical import PhysicalConnection
    from dataflow.testing.isolation.psycopg_async import PsycopgSharing
    from dataflow.testing.lease.lease import DatabaseLease


class SharedConnection(CancelsItsOwn):
    """One that a pool may take back while another one is at work."""

    _transport: Any

    def _end_of_driver(self) -> tuple[Relay, Client]:
        transport: _Joined = self._transport
        return transport.relay, transport.client

    def get_reset_query(self) -> str:
        """Nothing: the settings of the session belong to all."""
        return ""


class Sharing:
    """What opens them, and ends them with the test.

    :param opens: makes one, as `asyncpg.connect` does, of the class that it is given.
    :param limit_s: seconds that a task waits for one.
    :param psycopg: makes what opens those of psycopg, which need not be installed.
    """

    def __init__(
        self,
        opens: Callable[..., Awaitable[asyncpg.Connection]],
        limit_s: float,
        psycopg: Callable[[], PsycopgSharing],
        kind: type[asyncpg.Connection] = asyncpg.Connection,
    ) -> None:
        self._opens = opens
        self._psycopg = psycopg
        self._kind = kind
        self._limit_s = limit_s
        self._opened: list[asyncpg.Connection] = []
        self._pool: SharedPool | None = None

    async def connect(self, **arguments: Any) -> asyncpg.Connection:
        """:param arguments: for `asyncpg.connect`; those of the address are known."""
        connection = await self._opens(**{"connection_class": self._kind} | arguments)
        self._opened.append(connection)
        return connection

    @property
    def pool(self) -> asyncpg.Pool:
        if self._pool is None:
            self._pool = SharedPool(self.connect, self._limit_s, self._kind)
        return self._pool

    @cached_property
    def psycopg(self) -> PsycopgSharing:
        """The same with psycopg."""
        return self._psycopg()

    def end(self) -> None:
        """Close all of them, without waiting."""
        if "psycopg" in self.__dict__:
            self.psycopg.end()
        if self._pool is not None:
            self._pool.terminate()
        for connection in self._opened:
            if not connection.is_closed():
                connection.terminate()


def sharing_of(physical: PhysicalConnection, database: DatabaseLease | None, limit_s: float) -> Sharing:
    """Other connections of a test: in its transaction, or to the database that it has.

    :param limit_s: seconds that each waits for the others.
    """
    if database is not None:
        return Sharing(database.connect, limit_s, partial(_to_database, database, limit_s))
    relay, arguments = physical.relay, physical.arguments
    assert relay is not None, "it is the connection of a test"
    relay.wait_at_most(limit_s)
    with_psycopg = partial(_joining_psycopg, relay, arguments, limit_s)
    return Sharing(joining(relay, arguments, limit_s), limit_s, with_psycopg, SharedConnection)


def _to_database(database: DatabaseLease, limit_s: float) -> PsycopgSharing:
    with importing("psycopg"):
        from dataflow.testing.isolation.psycopg_async import PsycopgSharing, opening

    return PsycopgSharing(opening(database.dsn), limit_s)


def _joining_psycopg(relay: Relay, arguments: dict[str, Any], limit_s: float) -> PsycopgSharing:
    with importing("psycopg"):
        from dataflow.testing.isolation.psycopg_async import PsycopgSharing, joining

    return PsycopgSharing(joining(relay, arguments["user"], arguments["database"], limit_s), limit_s)


def joining(
    relay: Relay, arguments: dict[str, Any], limit_s: float
) -> Callable[..., Awaitable[asyncpg.Connection]]:
    """Opens connections that share the session of a test's.

    :param relay: of the test's connection. :param arguments: with which that was opened.
    :param limit_s: seconds that a connection waits for its turn.
    """

    async def connect(**more: Any) -> asyncpg.Connection:
        loop = asyncio.get_running_loop()
        stand_in = cast("Any", _JoiningLoop(loop, relay, limit_s))
        connection: Any = await asyncpg.connect(**arguments | more | {"loop": stand_in, "ssl": False})
        connection._loop = loop
        return cast("asyncpg.Connection", connection)

    return connect


class SharedPool(asyncpg.Pool):
    """A pool of asyncpg, whose connections share the transaction of a test. It is ready at once."""

    def __init__(self, connect: Callable[..., Any], limit_s: float, kind: type[asyncpg.Connection]) -> None:
        self._open = connect
        self._limit_s = limit_s
        given = {"min_size": 0, "max_size": MOST_IN_A_POOL, "connect": self._open_one, "connection_class": kind}
        super().__init__(**defaults() | given)
        making = self._async__init__()  # type: ignore[attr-defined]  # the stubs do not tell it
        try:
            making.send(None)  # it opens nothing, and so waits for nothing
        except StopIteration:
            return
        making.close()

    async def _open_one(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("loop", None)
        return await self._open(**kwargs)

    async def _acquire(self, timeout: float | None) -> Any:
        """
        :raises PoolExhausted: no connection became free in time.
        """
        limit_s = self._limit_s if timeout is None else timeout
        try:
            return await super()._acquire(limit_s)  # type: ignore[misc]  # the stubs do not tell it
        except TimeoutError:
            raise PoolExhausted(
                f"no connection of context.pool became free within {limit_s:g} s; there are {MOST_IN_A_POOL}",
                cause="a connection was not released, or the test waits for itself",
                remedy="release what was acquired",
                option="DATAFLOW_TDD_POOL_TIMEOUT, --tdd-pool-timeout",
            ) from None


class _JoiningLoop:
    """Stands in for the running loop while asyncpg opens a connection that is none to the server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, relay: Relay, limit_s: float) -> None:
        self._loop = loop
        self._relay = relay
        self._limit_s = limit_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_unix_connection(self, factory: Callable[[], Any], _path: str, **_options: Any) -> Any:
        return self._joined(factory)

    async def create_connection(self, factory: Callable[[], Any], *_where: Any, **_options: Any) -> Any:
        return self._joined(factory)

    def _joined(self, factory: Callable[[], Any]) -> Any:
        inner = factory()
        transport = _Joined(self._relay, inner, self._loop, self._limit_s)
        inner.connection_made(transport)
        return transport, inner


class _Joined(asyncio.Transport):
    """What the driver takes for its transport."""

    def __init__(self, relay: Relay, inner: Any, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        super().__init__()
        assert relay.session is not None, "a test runs on it"
        self.relay = relay
        self._inner = inner
        self._loop = loop
        self.client = relay.session.client(self._deliver, self._lost)
        self._patience = Patience(relay.session, self.client, loop, limit_s)
        self._paused = False
        self._kept: deque[bytes] = deque()
        self._greeted = False
        self._closing = False

    def write(self, data: Any) -> None:
        if self._closing:
            return
        if not self._greeted:  # it was the startup message
            self._greeted = True
            self._loop.call_soon(self._inner.data_received, self.relay.greeting)
        elif data == wire.TERMINATE:
            self.close()
        else:
            self.client.feed(data)
            self._patience.watch()

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self._end(None)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        """What comes is kept: the session has other drivers, which go on."""
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        if self._kept:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """By and by, as from a socket: the driver may pause again, and must not find that all is over already."""
        if self._kept and not self._paused and not self._closing:
            self._tell(self._kept.popleft())
            self._loop.call_soon(self._go_on)

    def _tell(self, said: bytes) -> None:
        """What goes wrong in one driver ends that, as its transport would do, and not the session of all."""
        try:
            self._inner.data_received(said)
        except Exception as error:
            log.debug("a driver failed: %s", mask(repr(error)))
            self._end(error)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered here."""

    def get_write_buffer_size(self) -> int:
        return 0

    def _deliver(self, said: bytes) -> None:
        if self._paused or self._kept:
            self._kept.append(said)
        elif not self._closing:
            self._tell(said)

    def _lost(self) -> None:
        self._end(ConnectionResetError("the session has ended"))

    def _end(self, why: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._patience.end()
            self.client.close()
            self._loop.call_soon(self._inner.connection_lost, why)
