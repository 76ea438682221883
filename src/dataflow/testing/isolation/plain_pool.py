"""A plain `asyncpg.Pool` for code that wants one: as asyncpg's own, but each wait ends and names the holders."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import asyncpg

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import PoolExhausted
from dataflow.testing.isolation.connecting import explain
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.isolation.physical import CLOSE_TIMEOUT_S, PhysicalConnection
from dataflow.testing.isolation.pool import terminate


class Terms(NamedTuple):
    """What a plain pool goes by.

    :param limit_s: seconds that `acquire` waits unless told otherwise, and that opening a connection may take.
    :param place: to be held while a connection is opened; waits until there may be one more.
    :param exhausted: the error when a wait was in vain because all places are taken; None: they are not.
    :param who: names whoever asks for a connection.
    """

    dsn: Dsn
    max_size: int
    limit_s: float
    command_timeout: float
    place: Callable[[], AbstractAsyncContextManager[None]]
    exhausted: Callable[[float], PoolExhausted | None]
    who: Callable[[], str | None]


class PlainPool(asyncpg.Pool):
    """Its connections are in no transaction, and commit. They are opened when they are needed."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(
            **defaults()
            | _without_jit(terms.dsn.asyncpg_arguments())
            | {
                "min_size": 0,
                "max_size": terms.max_size,
                "timeout": terms.limit_s,
                "command_timeout": terms.command_timeout,
                "connection_class": PhysicalConnection,
                "connect": self._open_one,
            }
        )
        self._terms = terms
        self._lent: dict[Any, TDDTestContext] = {}
        self._opening_once = asyncio.Lock()

    @property
    def holders(self) -> tuple[TDDTestContext, ...]:
        """Who has a connection of it now."""
        return tuple(self._held().values())

    async def open(self) -> None:
        """Make it usable; many may ask at a time. Nothing is opened yet."""
        async with self._opening_once:
            await self

    async def close(self) -> None:
        """In bounded time: asyncpg's own waits for every connection that somebody forgot to release."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await super().close()
        except TimeoutError:
            self.terminate()

    async def _open_one(self, *args: Any, **kwargs: Any) -> Any:
        """
        :raises ServerError: the server cannot be entered.
        """
        async with self._terms.place():
            try:
                return await asyncpg.connect(*args, **kwargs)
            except Exception as error:  # whatever it is: the frames of the driver show the password
                raise explain(error, self._terms.dsn, self._terms.limit_s) from None

    async def _acquire(self, timeout: float | None) -> Any:
        """
        :raises PoolExhausted: no connection became free in time; it names who holds what.
        :raises ServerError: a new one could not be opened.
        """
        context = new_holder(self._terms.who)
        limit_s = self._terms.limit_s if timeout is None else timeout
        try:
            connection = await super()._acquire(limit_s)  # type: ignore[misc]  # the stubs do not tell it
        except TimeoutError as error:
            if isinstance(error, PoolExhausted):
                raise
            exhausted = self._terms.exhausted(limit_s)
            raise exhausted or explain(error, self._terms.dsn, limit_s) from None
        context.take()
        self._lent[connection] = context
        return connection

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        self._lent.pop(connection, None)
        await super().release(connection, timeout=timeout)

    def discard(self, context: TDDTestContext) -> None:
        """Close what `context` holds, without waiting; others may have its place."""
        for connection in [lent for lent, holder in self._held().items() if holder is context]:
            del self._lent[connection]
            terminate(connection._con)

    def drop_idle(self) -> None:
        """Close what nobody holds, without waiting."""
        for holder in self._holders:  # type: ignore[attr-defined]  # the stubs do not tell it
            if holder.is_connected() and holder._in_use is None:
                holder.terminate()

    def _held(self) -> dict[Any, TDDTestContext]:
        # A connection that was closed went back to the pool by itself.
        self._lent = {lent: holder for lent, holder in self._lent.items() if lent._con is not None}
        return self._lent


def new_holder(who: Callable[[], str | None]) -> TDDTestContext:
    """A context that stands for whoever asks now."""
    owner = who()
    return TDDTestContext(owner or "", owner=owner)


def defaults() -> dict[str, Any]:
    """What asyncpg's own `create_pool` would pass on; which arguments there are differs between its versions."""
    given = inspect.signature(asyncpg.create_pool).parameters
    wanted = inspect.signature(asyncpg.Pool.__init__).parameters.values()
    return {
        parameter.name: given[parameter.name].default
        for parameter in wanted
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    }


def _without_jit(arguments: dict[str, Any]) -> dict[str, Any]:
    """Compiling queries costs more than the small queries of tests take."""
    return arguments | {"server_settings": {"jit": "off", **arguments.get("server_settings", {})}}
