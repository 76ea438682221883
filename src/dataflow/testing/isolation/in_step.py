"""psycopg in the sandbox without an event loop: its connections, and the threads that use them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from time import monotonic, sleep
from typing import Any, TypeVar

import psycopg
from psycopg.pq.abc import PGconn

from dataflow.testing.isolation.libpq import OVER, TICK_S, End, dressed, steps
from dataflow.testing.isolation.line import Line

T = TypeVar("T")

# Seconds that a thread gets to find that its connection was closed.
_LEAVING_S = 2.0


class ThreadsEnd(End):
    """One that threads use, one at a time.

    :ivar thread: who has used it last; `inside` tells who uses it now. :ivar waits_since: for its turn.
    """

    def __init__(self, line: Line, pgconn: PGconn, sock: socket.socket) -> None:
        super().__init__(line.session, pgconn, sock)
        self._line = line
        self._sockets = line.sockets()
        self._wanted = 0
        self.thread = 0
        self.waits_since: float | None = None
        line.join(self)

    def go_on(self, gen: Generator[Any, Any, T], tick_s: float, timeout: float | None) -> T:
        """Run a generator of psycopg."""
        self.inside = threading.get_ident()
        limit_s = self._line.limit_s
        until = self.begin(limit_s)
        running = steps(gen, self, timeout)
        try:
            if self.closed:
                raise psycopg.OperationalError("the connection is closed")
            wanted = next(running)
            while True:
                try:
                    self._wait(wanted, tick_s)
                    self.check_limit(until, limit_s)
                except BaseException as error:
                    wanted = running.throw(error)
                else:
                    wanted = next(running)
        except StopIteration as over:
            value: T = over.value
            return value
        finally:
            self.leave()

    def _wait(self, wanted: int, tick_s: float) -> None:
        if wanted != self._wanted:
            self._sockets.add(self.fd, wanted)
            self._wanted = wanted
        self._line.wait(self._sockets, self, tick_s)

    def hear(self) -> bool:
        return not self.closed and self._line.do(self._line.hear_driver, self)

    def cancel(self) -> None:
        self._line.cancel(self)

    def hang_up(self, said: bytes = b"") -> None:
        self._line.leave(self)
        super().hang_up(said)

    @property
    def used_elsewhere(self) -> bool:
        """By another thread. This one may have been interrupted just before it was done."""
        return self.inside not in (0, threading.get_ident())

    def close(self) -> None:
        """From now on nobody uses it; a thread that does is told. Idempotent."""
        if self.closed:
            return
        elsewhere = self.used_elsewhere
        try:
            self._line.do(self.hang_up, OVER if elsewhere else b"")
        except psycopg.OperationalError:
            self.cut()
        until = monotonic() + _LEAVING_S
        while elsewhere and self.inside and monotonic() < until:
            sleep(0.001)


class SandboxedConnection(psycopg.Connection[Any]):
    """A connection of psycopg in the transaction of a test."""

    end: ThreadsEnd

    def wait(
        self, gen: Generator[Any, Any, T], interval: float | None = TICK_S, timeout: float | None = None
    ) -> T:
        """As psycopg's, and in the meantime what is said is carried."""
        return self.end.go_on(gen, TICK_S if interval is None else interval, timeout)

    def cancel(self) -> None:
        """The statement that is under way on this connection. Others of the test are left alone."""
        if not self.closed:
            self.end.cancel()

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        self.cancel()

    def close(self) -> None:
        """A thread that has a statement under way on it finds it closed."""
        if not getattr(getattr(self, "_pool", None), "close_returns", False):
            self.end.close()
        if not self.end.used_elsewhere:
            super().close()


def connect(line: Line, conninfo: str = "", **arguments: Any) -> SandboxedConnection:
    """A connection of psycopg over a line; several may be open, and take turns.

    :param arguments: for `psycopg.connect`, such as `autocommit` and `row_factory`.
    """
    pgconn, sock = line.entrance.let_in()
    try:
        end = line.do(ThreadsEnd, line, pgconn, sock)
    except BaseException:
        sock.close()
        raise
    connection: SandboxedConnection = SandboxedConnection(end.pgconn)
    connection.end = end
    try:
        dressed(connection, conninfo, arguments)
    except BaseException:
        connection.close()
        raise
    return connection
