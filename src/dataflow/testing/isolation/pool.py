"""The pool: which connections there are in one event loop, who holds them, and who waits.

Every wait has a limit, and its error names the holders. The pool opens and closes connections; what is
done on them is not its business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from dataflow.testing.errors import NoTestConnection, PoolExhausted
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.isolation.physical import CLOSE_TIMEOUT_S, PhysicalConnection

log = logging.getLogger("dataflow.testing")

Connect = Callable[[], Awaitable[PhysicalConnection]]


class ConnectionPool:
    """Connections of one event loop.

    :param min_size: kept open between tests at least; :param max_size: open at most.
    :param timeout: seconds that `acquire` waits. :param keep: may take an idle one over when the pool is closed.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        min_size: int,
        max_size: int,
        timeout: float,
        keep: Callable[[PhysicalConnection], bool] = lambda _connection: False,
    ) -> None:
        self._connect = connect
        self._keep = keep
        self._min_size = min_size
        self._max_size = max_size
        self._timeout = timeout
        self._idle: list[PhysicalConnection] = []
        self._held: dict[PhysicalConnection, TDDTestContext] = {}
        self._pending = 0  # being opened, or handed over to somebody who waits and has not woken up yet
        self._waiting: deque[asyncio.Future[PhysicalConnection | None]] = deque()
        self._closed = False

    def get_size(self) -> int:
        """How many connections are open now, held or idle."""
        return len(self._idle) + len(self._held) + self._pending

    @property
    def open_size(self) -> int:
        """Without those that are being opened."""
        return len(self._idle) + len(self._held)

    def get_min_size(self) -> int:
        return self._min_size

    def get_max_size(self) -> int:
        return self._max_size

    def get_idle_size(self) -> int:
        """How many open connections nobody holds."""
        return len(self._idle)

    @property
    def holders(self) -> tuple[TDDTestContext, ...]:
        return tuple(self._held.values())

    async def fill(self) -> None:
        """Open connections up to the minimum, and one at least: it shows that the server can be used."""
        while self.get_size() < max(1, self._min_size):
            self._pending += 1
            self._pass_on(await self._open())

    async def acquire(self, context: TDDTestContext) -> tuple[PhysicalConnection, bool]:
        """A connection for `context`, and whether it served another test before.

        :raises PoolExhausted: none became free in time; it names who holds what.
        """
        connection = self._take_idle()
        used_before = connection is not None
        if connection is None:
            if self.get_size() < self._max_size:
                self._pending += 1
            else:
                connection = await self._turn(context)
                used_before = connection is not None
            if connection is None:
                connection = await self._open()
            else:
                self._pending -= 1
        if self._closed:
            terminate(connection)
            raise _closed_meanwhile(context)
        self._held[connection] = context
        return connection, used_before

    def release(self, connection: PhysicalConnection, *, reusable: bool) -> bool:
        """Take `connection` back; False when it is not kept, and the caller has to close it."""
        self._held.pop(connection, None)
        kept = reusable and not self._closed and not connection.is_closed()
        self._pass_on(connection if kept else None)
        return kept

    async def close(self) -> None:
        """Close all connections in bounded time, those still held by force. Idempotent."""
        idle = self._end()
        for connection in idle:
            if not self._keep(connection):
                await close_quietly(connection)

    def abandon(self) -> None:
        """Let go of all connections without waiting, also when their event loop is closed."""
        for connection in self._end():
            terminate(connection)

    def _end(self) -> list[PhysicalConnection]:
        """Take the pool out of use; returns the idle connections, which nobody has closed yet."""
        self._closed = True
        for connection in self._held:
            terminate(connection)
        self._held.clear()
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done() and not future.get_loop().is_closed():
                future.set_exception(_Closed())
        idle, self._idle = self._idle, []
        return idle

    def drop_idle(self) -> int:
        """Close idle connections without waiting; for a server that is near its limit, or gone."""
        dropped, self._idle = self._idle, []
        for connection in dropped:
            terminate(connection)
        return len(dropped)

    def _take_idle(self) -> PhysicalConnection | None:
        while self._idle:
            connection = self._idle.pop()  # the last one used has the warmest caches
            if not connection.is_closed():
                return connection
        return None

    async def _open(self) -> PhysicalConnection:
        """Open one; its place is counted as pending already."""
        try:
            connection = await self._connect()
        except BaseException:
            self._pending -= 1
            self._pass_on(None)
            raise
        self._pending -= 1
        return connection

    async def _turn(self, context: TDDTestContext) -> PhysicalConnection | None:
        """Wait in the queue; gives a connection, or None for the right to open one. Either is pending then."""
        future: asyncio.Future[PhysicalConnection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(self._timeout):
                return await future
        except TimeoutError:
            if _given(future):
                return future.result()
            raise pool_exhausted(context, self._timeout, self._max_size, self._held.values()) from None
        except _Closed:
            raise _closed_meanwhile(context) from None
        except BaseException:
            if _given(future):  # it was our turn, and we cannot use it any more
                self._pending -= 1
                self._pass_on(future.result())
            raise

    def _pass_on(self, connection: PhysicalConnection | None) -> None:
        """Give a free connection, or the free place of one (None), to whoever waits longest."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                self._pending += 1
                future.set_result(connection)
                return
        if connection is not None:
            self._idle.append(connection)


class _Closed(Exception):
    """The pool was closed while somebody waited."""


def _given(future: asyncio.Future[PhysicalConnection | None]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _closed_meanwhile(context: TDDTestContext) -> NoTestConnection:
    return NoTestConnection(
        f"{context.holder}: the pool was closed while it waited for a connection",
        cause="teardown_tdd_infrastructure() or the end of the event loop came before the end of a task",
        remedy="await or cancel your tasks before",
    )


POOL_OPTIONS = "DATAFLOW_TDD_POOL_SIZE, --tdd-pool-size; DATAFLOW_TDD_MAX_CONNECTIONS, --tdd-max-connections"


def pool_exhausted(
    context: TDDTestContext,
    waited_s: float,
    size: int,
    holders: Iterable[TDDTestContext],
    option: str = POOL_OPTIONS,
) -> PoolExhausted:
    """:param option: what sets `size`."""
    if size < 1:
        return PoolExhausted(
            f"{context.holder}: the settings allow no such connection",
            cause="the limit of connections beside the pool, or what max_connections leaves of it, is 0",
            remedy="allow more",
            option=option,
        )
    lines = "".join(f"\n    - {holder.describe()}" for holder in holders)
    return PoolExhausted(
        f"{context.holder}: no connection became free within {waited_s:g} s; all {size} are held by:{lines}",
        cause="a connection was not given back, or the test needs more of them at a time than there may be",
        remedy="give back what get_test_connection() gave (cleanup_test_connection), or allow more",
        option=f"{option}; DATAFLOW_TDD_POOL_TIMEOUT, --tdd-pool-timeout",
    )


async def close_quietly(connection: PhysicalConnection) -> None:
    """Close a connection in bounded time; if it does not answer, drop it."""
    log.debug("closed a connection")
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close(timeout=CLOSE_TIMEOUT_S)
    except asyncio.CancelledError:
        terminate(connection)
        raise
    except Exception:  # it is being thrown away: how it ended does not matter
        terminate(connection)


def terminate(connection: PhysicalConnection) -> None:
    """Close a connection without waiting, also when its loop does not run any more."""
    if connection.pid != os.getpid():
        return  # a forked child has the same socket: what it sends or shuts is its parent's
    log.debug("hung up a connection")
    with contextlib.suppress(RuntimeError):  # "Event loop is closed"
        connection.terminate()
    # A forked child has the same socket: what it shuts is shut for its parent too.
    if connection.pid == os.getpid() and not _in_its_loop(connection):
        hang_up(connection)


def _in_its_loop(connection: PhysicalConnection) -> bool:
    try:
        return asyncio.get_running_loop() is connection._loop
    except RuntimeError:
        return False


def hang_up(connection: PhysicalConnection) -> None:
    """Shut the socket at once, so that the server ends its backend; the loop would do that when it runs next."""
    transport: Any = getattr(connection, "_transport", None)
    given = transport.get_extra_info("socket") if transport is not None else None
    if given is None or given.fileno() < 0:
        return
    with contextlib.suppress(OSError):
        # A socket of our own: what uvloop gives has no shutdown().
        with socket.socket(fileno=os.dup(given.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)
    if connection._loop.is_closed():
        # The last step of asyncio's transport, which nobody else will take; without it the socket stays open.
        with contextlib.suppress(AttributeError, RuntimeError):
            transport._call_connection_lost(None)
