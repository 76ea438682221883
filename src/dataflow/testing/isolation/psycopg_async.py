"""psycopg in the sandbox in an event loop: asynchronous connections, in the transaction of a test with asyncpg.

What libpq sends is taken from its socket when psycopg comes to wait, and what the server says wakes whoever
waits. The loop watches no socket for it, so that any loop will do.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.pq.abc import PGconn

from dataflow.testing.errors import WrongEventLoop
from dataflow.testing.isolation.libpq import OVER, TICK_S, End, Entrance, dressed, steps
from dataflow.testing.isolation.relay import Patience, Relay
from dataflow.testing.missing import importing

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

    from dataflow.testing.dsn import Dsn
    from dataflow.testing.isolation.psycopg_pool import SharedAsyncPool

T = TypeVar("T")
Opens = Callable[..., Awaitable[psycopg.AsyncConnection[Any]]]


class LoopsEnd(End):
    """One that tasks of an event loop use, one at a time."""

    def __init__(
        self, relay: Relay, pgconn: PGconn, sock: socket.socket, turn_s: float, statement_s: float
    ) -> None:
        assert relay.session is not None, "a test runs on it"
        super().__init__(relay.session, pgconn, sock)
        self._statement_s = statement_s
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._patience = Patience(relay.session, self.client, self._loop, turn_s)
        self._waiter: asyncio.Future[None] | None = None
        self._cancelling: asyncio.Task[None] | None = None

    async def go_on(self, gen: Generator[Any, Any, T], tick_s: float, timeout: float | None) -> T:
        """Run a generator of psycopg."""
        if asyncio.get_running_loop() is not self._loop:
            raise WrongEventLoop(
                "a connection of psycopg was used in another event loop than its own",
                cause="it is in the transaction of a test, which belongs to one loop",
                remedy="open it in the loop in which it is used",
            )
        running = steps(gen, self, timeout)
        self.inside = 1
        until = self.begin(self._statement_s)
        try:
            next(running)
            while True:
                try:
                    await self._news(tick_s)
                    self.check_limit(until, self._statement_s)
                except BaseException as error:
                    running.throw(error)
                else:
                    next(running)
        except StopIteration as over:
            value: T = over.value
            return value
        finally:
            self.leave()

    async def _news(self, tick_s: float) -> None:
        """Until something was said, or for a while."""
        waiter = self._waiter = self._loop.create_future()
        tick = self._loop.call_later(tick_s, self._wake)
        try:
            await waiter
        finally:
            tick.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def deliver(self, said: bytes) -> None:
        super().deliver(said)
        self._wake()

    def hear(self) -> bool:
        heard = super().hear()
        if heard:
            self._patience.watch()
        return heard

    def cancel(self) -> None:
        if self.client.at_work:
            self._cancelling = self._relay.cancel()
        else:
            self.client.drop_waiting()

    def close(self) -> None:
        """From now on nobody uses it; a task that does is told. Idempotent."""
        self.hang_up(OVER if self.inside else b"")
        if not self.inside:
            self.pgconn.finish()

    def hang_up(self, said: bytes = b"") -> None:
        self._patience.end()
        super().hang_up(said)
        self._wake()


class SharedAsyncConnection(psycopg.AsyncConnection[Any]):
    """An asynchronous connection of psycopg in the transaction of a test."""

    end: LoopsEnd

    async def wait(
        self, gen: Generator[Any, Any, T], interval: float | None = TICK_S, timeout: float | None = None
    ) -> T:
        """As psycopg's, and what is said goes through the sandbox."""
        return await self.end.go_on(gen, TICK_S if interval is None else interval, timeout)

    def cancel(self) -> None:
        """The statement that is under way on this connection. Others of the test are left alone."""
        if not self.closed:
            self.end.cancel()

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        self.cancel()

    async def close(self) -> None:
        if not getattr(getattr(self, "_pool", None), "close_returns", False):
            self.end.hang_up(OVER if self.end.inside else b"")
        if not self.end.inside:
            await super().close()


class PsycopgSharing:
    """What opens them, and ends them with the test.

    :param opens: makes one. :param limit_s: seconds that a task waits for one of the pool.
    :param check_loop: raises in another loop than that of the test.
    """

    def __init__(self, opens: Opens, limit_s: float, check_loop: Callable[[], None]) -> None:
        self._opens = opens
        self._limit_s = limit_s
        self._check_loop = check_loop
        self._opened: list[psycopg.AsyncConnection[Any]] = []
        self._pool: SharedAsyncPool | None = None
        self._over = False

    async def connect(self, conninfo: str = "", **arguments: Any) -> psycopg.AsyncConnection[Any]:
        """:param arguments: for `psycopg.AsyncConnection.connect`; those of the address are known.

        :raises WrongEventLoop: another loop than that of the test runs here.
        """
        self._check_loop()
        connection = await self._opens(conninfo, **arguments)
        self._opened.append(connection)
        if self._over:  # meanwhile
            self._end(connection)
        return connection

    @property
    def pool(self) -> AsyncConnectionPool[Any]:
        if self._pool is None:
            with importing("psycopg_pool", extra="psycopg"):
                from dataflow.testing.isolation.psycopg_pool import SharedAsyncPool

            self._pool = SharedAsyncPool(self.connect, self._limit_s, self._check_loop)
        return self._pool

    def end(self) -> None:
        """Close all of them, without waiting."""
        self._over = True
        if self._pool is not None:
            self._pool.end()
        for connection in self._opened:
            self._end(connection)

    @staticmethod
    def _end(connection: psycopg.AsyncConnection[Any]) -> None:
        if isinstance(connection, SharedAsyncConnection):
            connection.end.close()
        else:
            connection.pgconn.finish()


def joining(relay: Relay, user: str | None, database: str | None, turn_s: float, statement_s: float) -> Opens:
    """Opens connections that share the session of a test's.

    :param relay: of the test's connection. :param turn_s: seconds that a connection waits for its turn.
    :param statement_s: seconds that a statement may take.
    """
    entrance = Entrance(relay.greeting, user, database)

    async def connect(conninfo: str = "", **arguments: Any) -> psycopg.AsyncConnection[Any]:
        end = LoopsEnd(relay, *entrance.let_in(), turn_s, statement_s)
        connection: SharedAsyncConnection = SharedAsyncConnection(end.pgconn)
        connection.end = end
        try:
            dressed(connection, conninfo, arguments)
        except BaseException:
            await connection.close()
            raise
        return connection

    return connect


def opening(dsn: Dsn) -> Opens:
    """Opens connections to a database."""
    from dataflow.testing.template.session import libpq_arguments

    async def connect(conninfo: str = "", **arguments: Any) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(conninfo, **(libpq_arguments(dsn, {}) | arguments))

    return connect
