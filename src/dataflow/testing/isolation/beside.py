"""Connections beside the pool: plain ones, in no transaction, for fixtures that commit on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from dataflow.testing.errors import PoolExhausted
from dataflow.testing.isolation.chosen import ChosenServer
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.isolation.loops import LoopBound, drop_idle
from dataflow.testing.isolation.physical import PhysicalConnection
from dataflow.testing.isolation.plain_pool import PlainPool, Terms, new_holder
from dataflow.testing.isolation.pool import close_quietly, pool_exhausted, terminate

if TYPE_CHECKING:
    from dataflow.testing.settings import Settings

OPTIONS = (
    "DATAFLOW_TDD_POOL_MAX_OVERFLOW, --tdd-pool-max-overflow; DATAFLOW_TDD_MAX_CONNECTIONS, --tdd-max-connections"
)
_LOOK_EVERY_S = 0.01

Room = Callable[[], AbstractAsyncContextManager[None]]


class Beside:
    """Single connections, and plain pools, one per event loop; all together counted against a limit.

    :param room: to be held while a connection is opened: the limit of all connections of the process.
    """

    def __init__(
        self, settings: Callable[[], Settings], chosen: ChosenServer, room: Room, who: Callable[[], str | None]
    ) -> None:
        self._settings = settings
        self._chosen = chosen
        self._room = room
        self._who = who
        self._open: dict[PhysicalConnection, TDDTestContext] = {}
        self._opening = 0
        self._pools: LoopBound[PlainPool] = LoopBound(self._make_pool, PlainPool.close)
        self._of_loop: LoopBound[set[PhysicalConnection]] = LoopBound(set, _close_each)

    @property
    def open_size(self) -> int:
        """How many are open, without those that are being opened."""
        return len(self._open) + sum(pool.get_size() for pool in self._pools)

    @property
    def holders(self) -> tuple[TDDTestContext, ...]:
        if not self._open and not self._pools:
            return ()  # asked after each test
        pooled = (holder for pool in self._pools for holder in pool.holders)
        return (*self._open.values(), *pooled)

    async def open(self, context: TDDTestContext) -> PhysicalConnection:
        """
        :raises PoolExhausted: there are as many as the settings allow.
        """
        async with self._place(context, limit_s=0.0):
            physical = await self._chosen.connect()
        context.take()
        self._open[physical] = context
        self._of_loop.take_dead()
        self._of_loop.of_running_loop().add(physical)
        return physical

    @asynccontextmanager
    async def _place(self, context: TDDTestContext, limit_s: float) -> AsyncIterator[None]:
        """Open a connection inside. What plain pools keep idle makes way; what is held is waited for."""
        deadline = monotonic() + limit_s
        while not self._take_place():
            if monotonic() >= deadline:
                raise pool_exhausted(context, limit_s, self._limit, self.holders, OPTIONS)
            await asyncio.sleep(_LOOK_EVERY_S)
        try:
            async with self._room():
                yield
        finally:
            self._opening -= 1

    def _take_place(self) -> bool:
        for pool in self._pools.take_dead():
            _terminate_pool(pool)
        if self.open_size + self._opening >= self._limit:
            for loop, pool in self._pools.items():
                drop_idle(loop, pool)
        has_place = self.open_size + self._opening < self._limit
        self._opening += has_place
        return has_place

    @property
    def _limit(self) -> int:
        return self._settings().max_beside_pool

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
        :raises PoolExhausted: the settings allow no connection beside the pool of the tests.
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
        if self._limit < 1:
            raise pool_exhausted(new_holder(self._who), 0, self._limit, self.holders, OPTIONS)
        return PlainPool(
            Terms(
                dsn=server.dsn,
                max_size=self._limit,
                limit_s=settings.pool_timeout,
                command_timeout=settings.timeout,
                place=lambda: self._place(new_holder(self._who), settings.pool_timeout),
                exhausted=self._exhausted,
                who=self._who,
            )
        )

    def _exhausted(self, waited_s: float) -> PoolExhausted | None:
        if len(self.holders) < self._limit:
            return None
        return pool_exhausted(new_holder(self._who), waited_s, self._limit, self.holders, OPTIONS)


async def _close_each(opened: set[PhysicalConnection]) -> None:
    for physical in list(opened):
        if not physical.is_closed():
            await close_quietly(physical)


def _terminate_pool(pool: asyncpg.Pool) -> None:
    try:
        pool.terminate()
    except RuntimeError:  # its event loop is closed: what it held ends with the process
        return
