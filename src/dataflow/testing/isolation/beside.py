"""Connections beside the pool: plain ones, in no transaction, for fixtures that commit on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import asyncpg

from dataflow.testing.isolation.chosen import ChosenServer
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.isolation.loops import LoopBound
from dataflow.testing.isolation.physical import CLOSE_TIMEOUT_S, PhysicalConnection
from dataflow.testing.isolation.plain_pool import OPTIONS, PlainPool, new_holder
from dataflow.testing.isolation.pool import close_quietly, pool_exhausted, terminate

if TYPE_CHECKING:
    from dataflow.testing.settings import Settings


class Beside:
    """Single connections, counted against a limit, and plain `asyncpg.Pool` objects, one per event loop."""

    def __init__(
        self, settings: Callable[[], Settings], chosen: ChosenServer, who: Callable[[], str | None]
    ) -> None:
        self._settings = settings
        self._chosen = chosen
        self._who = who
        self._open: dict[PhysicalConnection, TDDTestContext] = {}
        self._opening = 0
        self._pools: LoopBound[PlainPool] = LoopBound(self._make_pool, _close_pool)
        self._of_loop: LoopBound[set[PhysicalConnection]] = LoopBound(set, _close_each)

    def __len__(self) -> int:
        return len(self._open) + self._opening + sum(pool.get_size() for pool in self._pools)

    @property
    def holders(self) -> tuple[TDDTestContext, ...]:
        pooled = (holder for pool in self._pools for holder in pool.holders)
        return (*self._open.values(), *pooled)

    async def open(self, context: TDDTestContext, connect: Callable[[], Any]) -> PhysicalConnection:
        """
        :raises PoolExhausted: there are as many as the settings allow.
        """
        limit = self._settings().max_beside_pool
        if len(self) >= limit:
            raise pool_exhausted(context, 0, limit, self.holders, OPTIONS)
        self._opening += 1
        try:
            physical: PhysicalConnection = await connect()
        finally:
            self._opening -= 1
        context.take()
        self._open[physical] = context
        self._of_loop.take_dead()
        self._of_loop.of_running_loop().add(physical)
        return physical

    async def close(self, physical: PhysicalConnection) -> None:
        self._open.pop(physical, None)
        for opened in self._of_loop:
            opened.discard(physical)
        if not physical.is_closed():
            await close_quietly(physical)

    def discard(self, context: TDDTestContext) -> None:
        for physical in [held for held, holder in self._open.items() if holder is context]:
            del self._open[physical]
            terminate(physical)
        for pool in self._pools:
            pool.discard(context)

    async def pool(self) -> asyncpg.Pool:
        """
        :raises PoolExhausted: the settings allow no connection beside the pool of the tests, or no more.
        """
        self._pools.take_dead()
        pool = self._pools.of_running_loop()
        await pool.open()
        return pool

    async def close_all(self) -> None:
        """Close everything that belongs to the running loop, and hang up the rest."""
        await self._pools.close_own()
        await self._of_loop.close_own()
        self.drop_all()

    def drop_all(self) -> None:
        """Hang up without waiting."""
        for pool in self._pools:
            _terminate_pool(pool)
        self._pools.clear()
        self._of_loop.clear()
        for physical in list(self._open):
            terminate(physical)
        self._open.clear()

    def _make_pool(self) -> PlainPool:
        settings = self._settings()
        server = self._chosen.current
        assert server is not None, "whoever asks for a pool has chosen a server"
        most = settings.max_beside_pool - len(self)
        if most < 1:
            limit = settings.max_beside_pool
            raise pool_exhausted(new_holder(self._who), 0, limit, self.holders, OPTIONS)
        return PlainPool(
            server.dsn,
            min_size=min(3, most),
            max_size=most,
            limit_s=settings.pool_timeout,
            command_timeout=settings.timeout,
            who=self._who,
        )


async def _close_pool(pool: asyncpg.Pool) -> None:
    """In bounded time: by itself it waits for every connection that somebody forgot to release."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def _close_each(opened: set[PhysicalConnection]) -> None:
    for physical in list(opened):
        if not physical.is_closed():
            await close_quietly(physical)


def _terminate_pool(pool: asyncpg.Pool) -> None:
    try:
        pool.terminate()
    except RuntimeError:  # its event loop is closed: what it held ends with the process
        return
