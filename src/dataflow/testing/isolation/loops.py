"""One of a kind per event loop: a connection belongs to one loop, so what holds connections ends with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from dataflow.testing.isolation.pool import ConnectionPool

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


class LoopPools:
    """The connection pools of all loops of this process."""

    def __init__(self, make_pool: Callable[[], ConnectionPool]) -> None:
        self._pools = LoopBound(make_pool, ConnectionPool.close)

    def of_running_loop(self) -> ConnectionPool:
        return self._pools.of_running_loop()

    def existing(self) -> ConnectionPool | None:
        return self._pools.existing()

    @property
    def open_connections(self) -> int:
        return sum(pool.get_size() for pool in self._pools)

    def make_room(self, limit: int) -> None:
        """Close idle connections of other loops until less than `limit` are open in all."""
        self.abandon_dead()
        own = self._pools.of_running_loop()
        for pool in self._pools:
            if self.open_connections < limit:
                return
            if pool is not own:
                pool.drop_idle()

    def abandon_dead(self) -> None:
        """Hang up what was left behind by loops that ended without closing their generators."""
        for pool in self._pools.take_dead():
            pool.abandon()

    async def close_own(self) -> None:
        await self._pools.close_own()

    def drop_all(self) -> None:
        """Let go of every pool, without waiting; for the end of the process."""
        for pool in self._pools:
            pool.abandon()
        self._pools.clear()


async def _close_with_loop(close: Callable[[T], Awaitable[None]], closed: T) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await close(closed)
