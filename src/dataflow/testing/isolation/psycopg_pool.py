"""Pools of psycopg_pool, whose connections are those of a test. They are opened when somebody takes one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import psycopg_pool

from dataflow.testing.errors import PoolExhausted
from dataflow.testing.sandbox.client import MOST_IN_A_POOL


class SharedPool(psycopg_pool.ConnectionPool[Any]):
    """Its threads end with it.

    :param opens: makes a connection, as `psycopg.connect` does.
    :param limit_s: seconds that a thread waits for one.
    """

    def __init__(self, opens: Callable[..., Any], limit_s: float) -> None:
        super().__init__(**_given(opens, psycopg.Connection, limit_s))

    def getconn(self, timeout: float | None = None) -> Any:
        """
        :raises psycopg_pool.PoolTimeout: no connection became free in time.
        """
        with suppress(psycopg.OperationalError):  # it was closed, which is said below
            self.open()
        try:
            return super().getconn(timeout)
        except psycopg_pool.PoolTimeout:
            raise _exhausted(self.timeout if timeout is None else timeout) from None


class SharedAsyncPool(psycopg_pool.AsyncConnectionPool[Any]):
    """Its tasks end with it.

    :param opens: makes a connection, as `psycopg.AsyncConnection.connect` does.
    :param limit_s: seconds that a task waits for one. :param check_loop: raises in another loop than the test's.
    """

    def __init__(self, opens: Callable[..., Any], limit_s: float, check_loop: Callable[[], None]) -> None:
        super().__init__(**_given(opens, psycopg.AsyncConnection, limit_s))
        self._check_loop = check_loop
        self._closing: asyncio.Task[None] | None = None

    async def getconn(self, timeout: float | None = None) -> Any:
        """
        :raises psycopg_pool.PoolTimeout: no connection became free in time.
        :raises WrongEventLoop: it is used in another loop.
        """
        self._check_loop()
        with suppress(psycopg.OperationalError):  # it was closed, which is said below
            await self.open()
        try:
            return await super().getconn(timeout)
        except psycopg_pool.PoolTimeout:
            raise _exhausted(self.timeout if timeout is None else timeout) from None

    def end(self) -> None:
        """Close it, without waiting."""
        with suppress(RuntimeError):  # the loop is over, and its tasks with it
            loop = asyncio.get_running_loop()
            self._closing = loop.create_task(self.close())


def _given(opens: Callable[..., Any], kind: type[Any], limit_s: float) -> dict[str, Any]:
    """What a pool is made with; it has a way of its own to open connections: that of their class."""
    opened_so = type(kind.__name__, (kind,), {"connect": staticmethod(opens)})
    return {
        "connection_class": opened_so,
        "kwargs": {},
        "min_size": 0,
        "max_size": MOST_IN_A_POOL,
        "open": False,
        "timeout": limit_s,
        "num_workers": 1,
        "reconnect_timeout": 0.0,  # what could not be opened at once will not be opened later
    }


def _exhausted(limit_s: float) -> psycopg_pool.PoolTimeout:
    told = PoolExhausted(
        f"no connection of context.psycopg_pool became free within {limit_s:g} s; there are {MOST_IN_A_POOL}",
        cause="a connection was not given back, or the test waits for itself",
        remedy='give back what was taken; what needs more at a time, mark tdd(isolation="database")',
    )
    return psycopg_pool.PoolTimeout(str(told))
