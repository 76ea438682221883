"""The pool: which connections there are in one event loop, who holds them, and who waits.

Every wait has a limit, and its error names the holders. The pool opens and closes connections; what is
done on them is not its business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from dataflow.testing.errors import PoolExhausted
from dataflow.testing.isolation.connection import PhysicalConnection
from dataflow.testing.isolation.context import TDDTestContext

Connect = Callable[[], Awaitable[PhysicalConnection]]

CLOSE_TIMEOUT_S = 5.0


class ConnectionPool:
    """Connections of one event loop.

    :param min_size: kept open between tests at least; :param max_size: open at most.
    :param timeout: seconds that `acquire` waits.
    """

    def __init__(self, connect: Connect, *, min_size: int, max_size: int, timeout: float) -> None:
        self._connect = connect
        self._min_size = min_size
        self._max_size = max_size
        self._timeout = timeout
        self._idle: list[PhysicalConnection] = []
        self._held: dict[PhysicalConnection, TDDTestContext] = {}
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def get_size(self) -> int:
        """How many connections are open now, held or idle."""
        return len(self._idle) + len(self._held) + self._opening

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
            self._idle.append(await self._open())

    async def acquire(self, context: TDDTestContext) -> tuple[PhysicalConnection, bool]:
        """A connection for `context`, and whether it served another test before.

        :raises PoolExhausted: none became free in time; it names who holds what.
        """
        connection = self._take_idle()
        used_before = connection is not None
        if connection is None and self.get_size() < self._max_size:
            connection = await self._open()
        elif connection is None:
            connection, used_before = await self._wait_for_one(context)
        self._held[connection] = context
        return connection, used_before

    def release(self, connection: PhysicalConnection, *, reusable: bool) -> None:
        """Take `connection` back; one that must not be used again is to be closed by the caller."""
        self._held.pop(connection, None)
        if reusable and not self._closed and not connection.is_closed():
            self._idle.append(connection)
        self._wake_next()

    async def close(self) -> None:
        """Close all connections in bounded time, those still held by force. Idempotent."""
        self._closed = True
        idle, self._idle = self._idle, []
        held, self._held = list(self._held), {}
        for connection in held:
            connection.terminate()
        for connection in idle:
            await close_quietly(connection)
        for future in self._waiting:
            future.cancel()

    def abandon(self) -> None:
        """Let go of connections whose event loop is closed: nothing can be awaited on them any more."""
        self._closed = True
        for connection in (*self._idle, *self._held):
            hang_up(connection)
        self._idle.clear()
        self._held.clear()

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
        self._opening += 1
        try:
            return await self._connect()
        except BaseException:
            self._wake_next()
            raise
        finally:
            self._opening -= 1

    async def _wait_for_one(self, context: TDDTestContext) -> tuple[PhysicalConnection, bool]:
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    connection = self._take_idle()
                    if connection is not None:
                        return connection, True
                    if self.get_size() < self._max_size:
                        return await self._open(), False
                    await self._one_turn()
        except TimeoutError:
            raise pool_exhausted(context, self._timeout, self._max_size, self._held.values()) from None

    async def _one_turn(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self._wake_next()  # the turn was given to us, and we cannot use it
            raise
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def _wake_next(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return


def pool_exhausted(
    context: TDDTestContext, waited_s: float, size: int, holders: Iterable[TDDTestContext]
) -> PoolExhausted:
    lines = "".join(f"\n    - {holder.describe()}" for holder in holders)
    return PoolExhausted(
        f"{context.holder}: no connection became free within {waited_s:g} s; all {size} are held by:{lines}",
        cause="a connection was not given back, or the test needs more of them at a time than the pool has",
        remedy="give back what get_test_connection() gave (cleanup_test_connection), or make the pool larger",
        option="DATAFLOW_TDD_POOL_SIZE, --tdd-pool-size; DATAFLOW_TDD_POOL_TIMEOUT, --tdd-pool-timeout",
    )


async def close_quietly(connection: PhysicalConnection) -> None:
    """Close a connection in bounded time; if it does not answer, drop it."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT_S)
    except Exception:  # it is being thrown away: how it ended does not matter
        connection.terminate()


def terminate(connection: PhysicalConnection) -> None:
    """Close a connection without waiting, also when its loop is closed."""
    try:
        connection.terminate()
    except RuntimeError:  # "Event loop is closed"
        hang_up(connection)


def hang_up(connection: PhysicalConnection) -> None:
    """Shut the socket of a connection whose loop is closed, so that the server ends its backend."""
    transport = getattr(connection, "_transport", None)
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None:
        try:
            sock.shutdown(2)
        except OSError:
            return
