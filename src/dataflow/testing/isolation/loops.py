"""One of a kind per event loop: a connection belongs to one loop, so what holds connections ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakKeyDictionary

from dataflow.testing.errors import PoolExhausted
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.isolation.pool import ConnectionPool

_LOOK_EVERY_S = 0.01

T = TypeVar("T")


class LoopBound(Generic[T]):
    """An object per event loop, made at first use and closed together with its loop.

    A loop closes the asynchronous generators that were begun in it when it ends (`asyncio.run`,
    `asyncio.Runner`, and so pytest-asyncio). That is the one moment at which its connections can be closed
    properly, and so each object is closed by such a generator.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._objects: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()
        self._closers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[None, None]]
        self._closers = WeakKeyDictionary()

    def of_running_loop(self) -> T:
        loop = asyncio.get_running_loop()
        found = self._objects.get(loop)
        if found is None:
            found = self._objects[loop] = self._make()
            closer = self._closers[loop] = _close_with_loop(self._close, found)
            with contextlib.suppress(StopIteration):
                closer.asend(None).send(None)  # runs to its yield; the loop has seen it then
        return found

    def existing(self) -> T | None:
        """That of the running loop; outside of one, of the loop that came last."""
        try:
            return self._objects.get(asyncio.get_running_loop())
        except RuntimeError:
            return next(reversed(list(self._objects.values())), None)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))

    def __bool__(self) -> bool:
        return bool(self._objects)

    def items(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        return list(self._objects.items())

    async def close_own(self) -> None:
        """Close that of the running loop."""
        loop = asyncio.get_running_loop()
        self._objects.pop(loop, None)
        closer = self._closers.pop(loop, None)
        if closer is not None:
            await closer.aclose()

    def take_dead(self) -> list[T]:
        """Forget, and return, those whose loops were closed without closing their generators."""
        dead = [loop for loop in list(self._objects) if loop.is_closed()]
        for loop in dead:
            self._closers.pop(loop, None)  # it refers to its loop, and would keep it for ever
        return [self._objects.pop(loop) for loop in dead]

    def clear(self) -> None:
        self._objects.clear()
        self._closers.clear()


class RoomTerms(NamedTuple):
    """:param most: connections of the process in all. :param beside: how many of them are in no pool of tests.
    :param drop_parked: closes one that waits for a loop, if any.
    :param timeout_s: seconds to wait for a place. :param holders: whoever has a connection now.
    """

    most: int
    beside: Callable[[], int]
    drop_parked: Callable[[], bool]
    timeout_s: float
    holders: Callable[[], tuple[TDDTestContext, ...]]


class LoopPools:
    """The connection pools of all loops of this process."""

    def __init__(self, make_pool: Callable[[], ConnectionPool]) -> None:
        self._pools = LoopBound(make_pool, ConnectionPool.close)
        self._opening = 0  # connections that are being opened now, in all loops
        self._threads = threading.Lock()

    def of_running_loop(self) -> ConnectionPool:
        return self._pools.of_running_loop()

    def existing(self) -> ConnectionPool | None:
        return self._pools.existing()

    @asynccontextmanager
    async def room(self, terms: RoomTerms) -> AsyncIterator[None]:
        """Open a connection inside. Idle ones of all loops make way, held ones are waited for.

        :raises PoolExhausted: there are as many as may be all the time; it names the holders.
        """
        deadline = monotonic() + terms.timeout_s
        while not self._take_place(terms):
            if monotonic() >= deadline:
                raise _no_room(terms)
            await asyncio.sleep(_LOOK_EVERY_S)
        try:
            yield
        finally:
            with self._threads:
                self._opening -= 1

    def _take_place(self, terms: RoomTerms) -> bool:
        self.abandon_dead()
        own = self._pools.of_running_loop()
        with self._threads:
            while self._in_all(terms) >= terms.most and terms.drop_parked():
                pass
            # That of the running loop comes last.
            pools = sorted(self._pools.items(), key=lambda item: item[1] is own)
            while self._in_all(terms) >= terms.most and pools:
                drop_idle(*pools.pop(0))
            has_place = self._in_all(terms) < terms.most
            self._opening += has_place
            return has_place

    def _in_all(self, terms: RoomTerms) -> int:
        return self._opening + terms.beside() + sum(pool.open_size for pool in self._pools)

    def abandon_dead(self) -> None:
        """Hang up what was left behind by loops that ended without closing their generators."""
        for pool in self._pools.take_dead():
            pool.abandon()

    async def close_own(self) -> None:
        await self._pools.close_own()

    def drop_idle(self) -> None:
        """Close what nobody holds, in all loops, without waiting."""
        for loop, pool in self._pools.items():
            drop_idle(loop, pool)

    def drop_all(self) -> None:
        """Let go of every pool, without waiting; for the end of the process."""
        for pool in self._pools:
            pool.abandon()
        self._pools.clear()


class Idle(Protocol):
    def drop_idle(self) -> object: ...


def drop_idle(loop: asyncio.AbstractEventLoop, pool: Idle) -> None:
    """At once, or soon where the loop runs in another thread, since only there a transport may be touched."""
    if not loop.is_running() or loop is asyncio._get_running_loop():
        pool.drop_idle()
        return
    with contextlib.suppress(RuntimeError):  # it was closed in this instant, and its pool with it
        loop.call_soon_threadsafe(pool.drop_idle)


def _no_room(terms: RoomTerms) -> PoolExhausted:
    lines = "".join(f"\n    - {holder.describe()}" for holder in terms.holders())
    return PoolExhausted(
        f"no connection could be opened within {terms.timeout_s:g} s: this process may have {terms.most} in all, "
        f"which are held by:{lines}",
        cause="tests run in several event loops at the same time, or a connection was not given back",
        remedy="allow more connections, or let fewer tests run at a time",
        option="DATAFLOW_TDD_MAX_CONNECTIONS, --tdd-max-connections",
    )


async def _close_with_loop(close: Callable[[T], Awaitable[None]], closed: T) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await close(closed)
