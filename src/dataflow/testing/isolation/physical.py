"""The physical side of a test's connection: it serves one test after the other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import asyncpg

# Seconds that a server gets to acknowledge a cancelled statement.
SETTLE_S = 5.0
# Seconds that it gets to say goodbye.
CLOSE_TIMEOUT_S = 5.0


class PhysicalConnection(asyncpg.Connection):
    """A connection to the server; it serves one test after the other.

    `rewrite` changes the text of the next statement, once. With it our SAVEPOINT travels in the same round
    trip as the BEGIN that asyncpg's own transaction object sends, which keeps `connection.transaction()`
    aware of the outer transaction.
    """

    __slots__ = ("_own_config", "handle", "pid", "rewrite")

    # asyncpg's own, which its type stubs do not tell.
    _loop: asyncio.AbstractEventLoop
    _pool_release_ctr: int
    _top_xact: Any
    _protocol: Any
    _transport: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rewrite: Callable[[str], str] | None = None
        self._own_config: Any = self._config
        self.handle: Any = None  # of the test that has it now
        self.pid = os.getpid()

    def terminate(self) -> None:
        super().terminate()
        # After a close() that was given up, older versions of asyncpg believe that this was done.
        if self._transport is not None:
            self._transport.abort()

    def limit_statements(self, seconds: float | None) -> None:
        """Change the limit of all that runs on this connection: prepared statements, cursors and transaction
        blocks take no other one. None: back to that of the settings."""
        config = self._own_config
        self._config = config if seconds is None else config._replace(command_timeout=seconds)

    def disown(self) -> None:
        """Make the statements, cursors and transaction blocks that were made on it so far unusable, as
        asyncpg's own pool does: a task that outlived its test must not reach into the next one."""
        self._pool_release_ctr += 1

    def forget_transactions(self) -> None:
        """Let asyncpg know that no transaction block of its own is open any more."""
        self._top_xact = None

    @property
    def cancelling(self) -> bool:
        """A statement was cancelled, and the server has not acknowledged it yet."""
        return self._protocol is not None and self._protocol._is_cancelling()

    async def settle(self) -> None:
        """Wait for that acknowledgement. Older versions of asyncpg wait for it without a limit.

        :raises TimeoutError: the server does not react; the connection is closed then.
        """
        if not self.cancelling:
            return
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._protocol._wait_for_cancellation()
        except TimeoutError:
            self.terminate()
            raise

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if self.rewrite is not None:
            query, self.rewrite = self.rewrite(query), None
        return await super().execute(query, *args, timeout=timeout)
