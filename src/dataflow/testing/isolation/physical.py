"""The physical side of a test's connection: it serves one test after the other."""

from __future__ import annotations

import asyncio
import os
from time import monotonic
from typing import Any

import asyncpg

from dataflow.testing.isolation.questions import Questions
from dataflow.testing.isolation.relay import CancelsItsOwn, Relay
from dataflow.testing.sandbox.answer import Answer
from dataflow.testing.sandbox.client import Client
from dataflow.testing.sandbox.recording import Recorder
from dataflow.testing.sandbox.session import Session

# Seconds that a server gets to acknowledge a cancelled statement.
SETTLE_S = 5.0
# Seconds that it gets to say goodbye.
CLOSE_TIMEOUT_S = 5.0


class PhysicalConnection(CancelsItsOwn):
    """A connection to the server; it serves one test after the other.

    :ivar relay: between it and the server; None for a plain connection.
    :ivar arguments: with which it was opened.
    :ivar questions: what the server is asked at the beginning and the end of a test.
    :ivar resumed: its session has served tests in another event loop.
    """

    __slots__ = ("_own_config", "arguments", "handle", "pid", "questions", "relay", "resumed")

    # asyncpg's own, which its type stubs do not tell.
    _loop: asyncio.AbstractEventLoop
    _pool_release_ctr: int
    _top_xact: Any
    _protocol: Any
    _transport: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relay: Relay | None = None
        self.arguments: dict[str, Any] = {}
        self._own_config: Any = self._config
        self.handle: Any = None  # of the test that has it now
        self.pid = os.getpid()
        self.questions = Questions()
        self.resumed = False

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

    async def quiet(self) -> None:
        """Have cancelled what is under way for connections of the test that were closed, and wait for its end.

        :raises TimeoutError: the server does not react; the connection is closed then.
        """
        relay, session = self.relay, self.session
        assert relay is not None, "it has a session"
        if session.abandoned:
            relay.cancel()
        until = monotonic() + SETTLE_S
        while relay.cancels or session.abandoned:
            if monotonic() > until:
                self.terminate()
                raise TimeoutError
            await asyncio.sleep(0.001)

    def record(self, recorder: Recorder | None) -> None:
        """From now on tell it what is sent. None: nobody any more."""
        if self.relay is not None and self.relay.session is not None:
            self.relay.session.recorder = recorder

    async def hear(self) -> None:
        """Let asyncpg know that it is in no transaction any more: it hears that when it has sent something."""
        if self.is_in_transaction():
            await self.execute("SELECT")

    @property
    def session(self) -> Session:
        """
        :raises asyncpg.InterfaceError: it is closed.
        """
        if self.relay is None or self.relay.session is None or self.is_closed():
            raise asyncpg.InterfaceError("connection is closed")
        return self.relay.session

    def _end_of_driver(self) -> tuple[Relay, Client] | None:
        relay = self.relay
        return None if relay is None or relay.client is None else (relay, relay.client)

    @property
    def isolated(self) -> bool:
        """The transaction that is never committed is open."""
        return not self.is_closed() and self.session.isolated

    async def ask(self, sql: str, timeout: float | None = None) -> list[tuple[str | None, ...]]:
        """Send a Query around the sandbox; returns the rows, as text.

        :param timeout: seconds. :raises asyncpg.InterfaceError: a statement of the test is still under way.
        """
        session = self.session
        if not session.free:
            raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        answer = Answer(lambda: None if over.done() else over.set_result(None))
        session.ask(sql, answer)
        limit_s = self._config.command_timeout if timeout is None else timeout
        # Not `asyncio.timeout`: every test asks twice, and that costs as much as sending.
        timer = None if limit_s is None else loop.call_later(limit_s, _late, over)
        try:
            await over
        except BaseException:
            self.terminate()  # it would hear the rest of this answer
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if answer.error is not None:
            raise asyncpg.PostgresError.new(answer.error)
        return answer.rows


def _late(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_exception(TimeoutError())
