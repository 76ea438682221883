"""A connection of asyncpg that shares the session of a test, and the pool of such ones."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg

from dataflow.testing.errors import PoolExhausted
from dataflow.testing.isolation.plain_pool import defaults
from dataflow.testing.isolation.refusals import other_loop, timed_out
from dataflow.testing.isolation.relay import CancelsItsOwn, Relay
from dataflow.testing.sandbox.client import MOST_IN_A_POOL, Client

if TYPE_CHECKING:
    from dataflow.testing.isolation.sharing import Joined

# Of a connection of asyncpg: they take a statement first, and a table.
STATEMENT_METHODS = tuple(
    name
    for name in ("execute", "executemany", "fetch", "fetchrow", "fetchval", "fetchmany", "copy_from_query")
    if hasattr(asyncpg.Connection, name)  # fetchmany came with asyncpg 0.30
)
COPY_METHODS = ("copy_from_table", "copy_to_table", "copy_records_to_table")


class SharedConnection(CancelsItsOwn):
    """One that a pool may take back while another one is at work. :ivar test_id: whose it is."""

    _transport: Any
    _config: Any
    test_id = ""

    def _end_of_driver(self) -> tuple[Relay, Client]:
        transport: Joined = self._transport
        return transport.relay, transport.client

    def _check_open(self) -> None:
        super()._check_open()  # type: ignore[misc]  # the stubs do not tell it
        transport: Joined = self._transport
        check_loop(transport.loop, self.test_id)

    def get_reset_query(self) -> str:
        """Nothing: the settings of the session belong to all."""
        return ""


def check_loop(loop: asyncio.AbstractEventLoop, test_id: str) -> None:
    """:raises WrongEventLoop: that is not the one which runs here."""
    try:
        if asyncio.get_running_loop() is loop:
            return
    except RuntimeError:
        pass
    raise other_loop(test_id)


def _limited(name: str) -> Callable[..., Any]:
    method = getattr(asyncpg.Connection, name)

    @functools.wraps(method)
    async def limited(self: SharedConnection, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        started = perf_counter()
        try:
            return await method(self, *args, **kwargs)
        except TimeoutError as error:
            what = str(args[0] if args else next(iter(kwargs.values()), name))
            limit_s = kwargs.get("timeout") or self._config.command_timeout
            raise timed_out(self.test_id, what, perf_counter() - started, limit_s) from error

    return limited


for _name in STATEMENT_METHODS + COPY_METHODS:
    setattr(SharedConnection, _name, _limited(_name))


class SharedPool(asyncpg.Pool):
    """A pool of asyncpg, whose connections are those of a test. It is ready at once.

    :param connect: opens one. :param limit_s: seconds that a task waits for one. :param kind: of connections.
    :param loop: that of the test. :param check_loop: raises if that is not the one which runs here.
    """

    def __init__(
        self,
        connect: Callable[..., Any],
        limit_s: float,
        kind: type[asyncpg.Connection],
        loop: asyncio.AbstractEventLoop,
        check_loop: Callable[[], None],
    ) -> None:
        self._open = connect
        self._limit_s = limit_s
        self._check_loop = check_loop
        given = {"min_size": 0, "max_size": MOST_IN_A_POOL, "connect": self._open_one, "connection_class": kind}
        super().__init__(**defaults() | given | {"loop": loop})
        making = self._async__init__()  # type: ignore[attr-defined]  # the stubs do not tell it
        try:
            making.send(None)  # it opens nothing, and so waits for nothing
        except StopIteration:
            return
        making.close()

    async def _open_one(self, *args: Any, **kwargs: Any) -> Any:
        return await self._open(**kwargs)

    async def _acquire(self, timeout: float | None) -> Any:
        """
        :raises PoolExhausted: no connection became free in time.
        :raises WrongEventLoop: it is used in another loop.
        """
        self._check_loop()
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
