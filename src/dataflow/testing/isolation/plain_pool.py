"""A plain `asyncpg.Pool` for code that wants one: as asyncpg's own, but each wait ends and names the holders."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import asyncpg

from dataflow.testing.isolation.connecting import explain
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.isolation.physical import PhysicalConnection
from dataflow.testing.isolation.pool import pool_exhausted, terminate

if TYPE_CHECKING:
    from dataflow.testing.dsn import Dsn


OPTIONS = (
    "DATAFLOW_TDD_POOL_MAX_OVERFLOW, --tdd-pool-max-overflow; DATAFLOW_TDD_MAX_CONNECTIONS, --tdd-max-connections"
)


class PlainPool(asyncpg.Pool):
    """Its connections are in no transaction, and commit.

    :param limit_s: seconds that `acquire` waits unless told otherwise, and that opening a connection may take.
    :param who: names whoever asks for a connection.
    """

    def __init__(
        self,
        dsn: Dsn,
        *,
        min_size: int,
        max_size: int,
        limit_s: float,
        command_timeout: float,
        who: Callable[[], str | None],
    ) -> None:
        sizes = {"min_size": min_size, "max_size": max_size}
        times = {"timeout": limit_s, "command_timeout": command_timeout}
        kind = {"connection_class": PhysicalConnection}
        super().__init__(**_defaults() | _without_jit(dsn.asyncpg_arguments()) | sizes | times | kind)
        self._dsn = dsn
        self._limit_s = limit_s
        self._who = who
        self._lent: dict[Any, TDDTestContext] = {}
        self._opening = asyncio.Lock()

    @property
    def holders(self) -> tuple[TDDTestContext, ...]:
        """Who has a connection of it now."""
        return tuple(self._held().values())

    async def open(self) -> None:
        """Open the first connections; many may ask at a time.

        :raises ServerError: the server cannot be entered.
        """
        async with self._opening:
            try:
                await self
            except Exception as error:  # whatever it is: the frames of the driver show the password
                raise explain(error, self._dsn, self._limit_s) from None

    async def _acquire(self, timeout: float | None) -> Any:
        """
        :raises PoolExhausted: no connection became free in time; it names who holds what.
        """
        context = new_holder(self._who)
        limit_s = self._limit_s if timeout is None else timeout
        try:
            connection = await super()._acquire(limit_s)  # type: ignore[misc]  # the stubs do not tell it
        except TimeoutError:
            raise pool_exhausted(context, limit_s, self.get_max_size(), self.holders, OPTIONS) from None
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

    def _held(self) -> dict[Any, TDDTestContext]:
        # A connection that was closed went back to the pool by itself.
        self._lent = {lent: holder for lent, holder in self._lent.items() if lent._con is not None}
        return self._lent


def new_holder(who: Callable[[], str | None]) -> TDDTestContext:
    """A context that stands for whoever asks now."""
    owner = who()
    return TDDTestContext(owner or "", owner=owner)


def _defaults() -> dict[str, Any]:
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
