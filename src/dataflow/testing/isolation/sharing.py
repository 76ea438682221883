"""More connections in the transaction of a test. Each is one to its driver, and all share one session.

They take turns: a statement, or a transaction that one of them has begun, goes on alone, and the others wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import asyncpg

from dataflow.testing.isolation.relay import Patience, Relay
from dataflow.testing.isolation.shared import SharedConnection, SharedPool, check_loop
from dataflow.testing.masking import mask
from dataflow.testing.missing import importing
from dataflow.testing.sandbox import wire

log = logging.getLogger("dataflow.testing")

if TYPE_CHECKING:
    from dataflow.testing.isolation.physical import PhysicalConnection
    from dataflow.testing.isolation.psycopg_async import PsycopgSharing
    from dataflow.testing.lease.lease import DatabaseLease


# Arguments of `asyncpg.connect` that say where to; that is known.
_WHERE = frozenset(
    {"database", "direct_tls", "dsn", "host", "loop", "passfile", "password", "port", "service", "ssl", "user"}
)


class Terms(NamedTuple):
    """Of what a test shares.

    :param test_id: whose it is. :param loop: the test's. :param turn_s: seconds that a connection waits for the
        others. :param statement_s: seconds that a statement may take.
    """

    test_id: str
    loop: asyncio.AbstractEventLoop
    turn_s: float
    statement_s: float

    def check_loop(self) -> None:
        """:raises WrongEventLoop: another one runs here."""
        check_loop(self.loop, self.test_id)


class Sharing:
    """What opens them, and ends them with the test.

    :param opens: makes one, as `asyncpg.connect` does, of the class that it is given.
    :param psycopg: makes what opens those of psycopg, which need not be installed.
    """

    def __init__(
        self,
        opens: Callable[..., Awaitable[asyncpg.Connection]],
        terms: Terms,
        psycopg: Callable[[], PsycopgSharing],
        kind: type[asyncpg.Connection] = asyncpg.Connection,
    ) -> None:
        self._opens = opens
        self._psycopg = psycopg
        self._kind = kind
        self._terms = terms
        self._opened: list[asyncpg.Connection] = []
        self._pool: SharedPool | None = None

    async def connect(self, **arguments: Any) -> asyncpg.Connection:
        """:param arguments: for `asyncpg.connect`; those of the address are known.

        :raises WrongEventLoop: another loop than that of the test runs here.
        """
        self._terms.check_loop()
        wanted = {name: value for name, value in arguments.items() if name not in _WHERE and value is not None}
        wanted["connection_class"] = self._class(wanted.get("connection_class", asyncpg.Connection))
        connection = await self._opens(**{"command_timeout": self._terms.statement_s} | wanted)
        self._opened.append(connection)
        return connection

    @property
    def pool(self) -> asyncpg.Pool:
        if self._pool is None:
            terms = self._terms
            self._pool = SharedPool(self.connect, terms.turn_s, self._kind, terms.loop, terms.check_loop)
        return self._pool

    def _class(self, wanted: type[asyncpg.Connection]) -> type[asyncpg.Connection]:
        """Of a connection that shares, and is what was wanted."""
        if issubclass(self._kind, wanted):
            return self._kind
        if issubclass(wanted, self._kind):
            return wanted
        return type(wanted.__name__, (self._kind, wanted), {})

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


def sharing_of(physical: PhysicalConnection, database: DatabaseLease | None, terms: Terms) -> Sharing:
    """Other connections of a test: in its transaction, or to the database that it has."""
    if database is not None:
        return Sharing(database.connect, terms, partial(_to_database, database, terms))
    relay, arguments = physical.relay, physical.arguments
    assert relay is not None, "it is the connection of a test"
    relay.wait_at_most(terms.turn_s, terms.loop)
    with_psycopg = partial(_joining_psycopg, relay, arguments, terms)
    return Sharing(joining(relay, arguments, terms), terms, with_psycopg, SharedConnection)


def _to_database(database: DatabaseLease, terms: Terms) -> PsycopgSharing:
    with importing("psycopg"):
        from dataflow.testing.isolation.psycopg_async import PsycopgSharing, opening

    return PsycopgSharing(opening(database.dsn), terms.turn_s, terms.check_loop)


def _joining_psycopg(relay: Relay, arguments: dict[str, Any], terms: Terms) -> PsycopgSharing:
    with importing("psycopg"):
        from dataflow.testing.isolation.psycopg_async import PsycopgSharing, joining

    opens = joining(relay, arguments["user"], arguments["database"], terms.turn_s, terms.statement_s)
    return PsycopgSharing(opens, terms.turn_s, terms.check_loop)


def joining(
    relay: Relay, arguments: dict[str, Any], terms: Terms
) -> Callable[..., Awaitable[asyncpg.Connection]]:
    """Opens connections that share the session of a test's.

    :param relay: of the test's connection. :param arguments: with which that was opened.
    """

    async def connect(**more: Any) -> asyncpg.Connection:
        stand_in = cast("Any", _JoiningLoop(terms.loop, relay, terms.turn_s))
        connection: Any = await asyncpg.connect(**arguments | more | {"loop": stand_in, "ssl": False})
        connection._loop = terms.loop
        connection.test_id = terms.test_id
        return cast("asyncpg.Connection", connection)

    return connect


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
        transport = Joined(self._relay, inner, self._loop, self._limit_s)
        inner.connection_made(transport)
        return transport, inner


class Joined(asyncio.Transport):
    """What the driver takes for its transport."""

    def __init__(self, relay: Relay, inner: Any, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        super().__init__()
        assert relay.session is not None, "a test runs on it"
        self.relay = relay
        self._inner = inner
        self.loop = loop
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
            self.loop.call_soon(self._inner.data_received, self.relay.greeting)
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
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """By and by, as from a socket: the driver may pause again, and must not find that all is over already."""
        if self._kept and not self._paused and not self._closing:
            self._tell(self._kept.popleft())
            self.loop.call_soon(self._go_on)

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
            self.loop.call_soon(self._inner.connection_lost, why)
