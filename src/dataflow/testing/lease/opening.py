"""A connection of asyncpg that is about to be opened: who awaits it closes it; who enters it need not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

# Closing asks the server; one that does not answer is left alone after so many seconds.
_CLOSE_LIMIT_S = 10.0


class Opening:
    """``connection = await …``, or ``async with … as connection:``, as with a pool of asyncpg."""

    def __init__(self, opens: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._opens = opens
        self._connection: asyncpg.Connection | None = None

    def __await__(self) -> Generator[Any, None, asyncpg.Connection]:
        return self._opens().__await__()

    async def __aenter__(self) -> asyncpg.Connection:
        self._connection = await self
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close(timeout=_CLOSE_LIMIT_S)
