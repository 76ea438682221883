"""A session of the server without an event loop: whoever waits for it carries what is said there and back.

No thread has to be woken up for a statement, and any number of threads may wait. Each of them looks at the
server's socket and at its own; the first one that hears something passes it on to whom it belongs.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.pq.abc import PGconn

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerUnreachable
from dataflow.testing.isolation.libpq import EVENTS, TICK_S, End, Entrance, send_most
from dataflow.testing.isolation.questions import Asking, PreparedGone
from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.answer import Answer
from dataflow.testing.sandbox.client import TURN_LIMIT_S
from dataflow.testing.sandbox.conversation import nothing
from dataflow.testing.sandbox.session import Session
from dataflow.testing.template import session as sessions

if TYPE_CHECKING:
    from dataflow.testing.isolation.in_step import ThreadsEnd

T = TypeVar("T")

# Seconds that the server gets to take the wish that a statement be cancelled.
_CANCEL_LIMIT_S = 5.0
_CHUNK = 1 << 16
_SETTINGS = {"jit": "off"}
_ITS_TURN_WILL_NOT_COME = "another connection of this test has begun a transaction, and not ended it"
_TOLD = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "is_superuser",
    "session_authorization",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
)


class Line:
    """A session of the server, reached without an event loop. Threads may share it.

    :param limit_s: seconds that the server may take for an answer, and a statement in all.
    :raises ServerUnreachable: it cannot be entered, or only through TLS.
    """

    def __init__(self, dsn: Dsn, limit_s: float) -> None:
        self._entered = _entered(dsn)
        self._server = socket.socket(fileno=os.dup(self._entered.pgconn.socket))
        self._server.setblocking(False)
        self._to_server = bytearray()
        self.limit_s = limit_s
        self._moved = monotonic()  # when something was last said there or back
        self._threads = threading.RLock()
        self._torn = False
        self._ends: list[ThreadsEnd] = []
        self._own = self.sockets()
        self.entrance = Entrance(_greeting(self._entered.pgconn), dsn.user, dsn.database)
        self.dsn = dsn
        self.backend_pid = self._entered.info.backend_pid
        self.session = Session(self._to_server.extend)

    def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """What two threads must not do at a time, and nobody may leave half done.

        :raises psycopg.OperationalError: somebody did, by an exception out of a handler of a signal.
        """
        with self._threads:
            if self._torn:
                raise psycopg.OperationalError("the connection was interrupted while it was at work")
            self._torn = True
            result = work(*arguments)
            self._torn = False
            return result

    def join(self, end: ThreadsEnd) -> None:
        self._ends.append(end)

    def leave(self, end: ThreadsEnd) -> None:
        if end in self._ends:
            self._ends.remove(end)

    def sockets(self) -> Sockets:
        """For one thread to wait for."""
        return Sockets(self._server)

    def ask(self, sql: str) -> list[tuple[str | None, ...]]:
        """Send a Query around the sandbox; returns the rows, as text.

        :raises psycopg.Error: what the server said.
        """
        answer = Answer(nothing)
        self.do(self._ask, sql, answer)
        while answer.ready:
            self.wait(self._own, None, TICK_S)
        if answer.error is not None:
            raise psycopg.errors.lookup(answer.error["C"])(answer.error["M"])
        return answer.rows

    def ask_all(self, asking: Asking[T]) -> T:
        """Several, as the answers want it.

        :raises psycopg.Error: what the server said.
        """
        question = next(asking)
        try:
            while True:
                try:
                    rows = self.ask(question)
                except psycopg.errors.InvalidSqlStatementName:
                    question = asking.throw(PreparedGone())
                else:
                    question = asking.send(rows)
        except StopIteration as over:
            value: T = over.value
            return value

    def settle(self) -> None:
        """Nothing is under way any more; what is, is cancelled."""
        if self.session.busy:
            self.do(self._cancel_at_server)
        while self.session.busy:
            self.wait(self._own, None, TICK_S)

    def close(self) -> None:
        self._server.close()
        self._entered.close()

    # For those who wait

    def hear_driver(self, end: ThreadsEnd) -> bool:
        """What libpq has sent."""
        end.thread = threading.get_ident()
        heard = End.hear(end)
        self._flush()
        if end.client.waits:
            self._have_patience(end)
        else:
            end.waits_since = None
        return heard

    def wait(self, sockets: Sockets, end: ThreadsEnd | None, seconds: float) -> None:
        """Until something was said, or the time is over.

        :raises psycopg.OperationalError: the server says nothing for too long.
        """
        heard, any_ = sockets.poll(seconds, writes=bool(self._to_server))
        if heard:
            self.do(self._hear_server)
        elif not any_:
            self.do(self._look_around, end)
            # A statement of a driver is cancelled at the limit.
            limit_s = self.limit_s if end is None else self.limit_s + _CANCEL_LIMIT_S
            if monotonic() - self._moved > limit_s:
                raise psycopg.OperationalError(
                    f"the server has not answered for {limit_s:g} s: its process is stopped, or the machine is "
                    "overloaded; --tdd-timeout (DATAFLOW_TDD_TIMEOUT) sets how long it may take"
                )

    def cancel(self, end: ThreadsEnd) -> None:
        """What is under way for that one, and nobody else's."""
        self.do(self._cancel, end)

    def _ask(self, sql: str, answer: Answer) -> None:
        self.session.ask(sql, answer)
        self._flush()

    def _hear_server(self) -> None:
        self._flush()
        try:
            said = self._server.recv(_CHUNK)
        except BlockingIOError:  # another thread was faster
            return
        except OSError:
            said = b""
        if not said:
            self.session.hang_up()
            return
        self._moved = monotonic()
        self.session.feed(said)
        self._flush()

    def _look_around(self, end: ThreadsEnd | None) -> None:
        self._flush()
        if end is not None and end.client.waits:
            self._have_patience(end)
        if not self.session.busy:
            self._moved = monotonic()

    def _have_patience(self, end: ThreadsEnd) -> None:
        """The transaction of another thread may end yet; one of its own does not, while it is here."""
        now = monotonic()
        other = next((other for other in self._ends if end.client.waits_for(other.client)), None)
        own = other is not None and other.thread == end.thread
        if end.waits_since is None or (self.session.busy and not own):
            end.waits_since = now  # a statement ends by itself, and has a limit of its own
        limit_s = min(TURN_LIMIT_S, self.limit_s / 2)
        if own and not self.session.busy:
            end.client.refuse_turn(_ITS_TURN_WILL_NOT_COME)
        elif now - end.waits_since >= limit_s:
            end.client.waited_too_long(limit_s)

    def _cancel(self, end: ThreadsEnd) -> None:
        if end.client.at_work:
            self._cancel_at_server()
        else:
            end.client.drop_waiting()

    def _cancel_at_server(self) -> None:
        """Nothing else is sent before the server was told, so that it cannot be the next statement."""
        with suppress(psycopg.Error):  # what cannot be cancelled ends by itself, or the limit is reached
            self._entered.cancel_safe(timeout=_CANCEL_LIMIT_S)

    def _flush(self) -> None:
        if self._to_server:
            self._moved = monotonic()
            send_most(self._server, self._to_server)


class Sockets:
    """What one thread waits for."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server.fileno()
        self._poll = select.poll()
        self._poll.register(self._server, select.POLLIN)
        self._writes = False

    def add(self, fd: int, wanted: int) -> None:
        self._poll.register(fd, EVENTS[wanted])

    def poll(self, seconds: float, *, writes: bool) -> tuple[bool, bool]:
        """Whether the server has something to say or takes more, and whether anything happened."""
        if writes != self._writes:
            self._poll.register(self._server, select.POLLIN | select.POLLOUT if writes else select.POLLIN)
            self._writes = writes
        found = self._poll.poll(seconds * 1e3)
        heard = found and (found[0][0] == self._server or found[-1][0] == self._server)  # they are two at most
        return bool(heard), bool(found)


def _entered(dsn: Dsn) -> psycopg.Connection:
    """A session whose socket carries what is said as it is."""
    if not hasattr(socket, "AF_UNIX"):
        raise _not_here("this system has no UNIX sockets")
    entered = sessions.connect(dsn, settings=_SETTINGS)
    if not entered.pgconn.ssl_in_use:
        return entered
    entered.close()
    try:
        parameters = (*(each for each in dsn.parameters if each[0] != "sslmode"), ("sslmode", "disable"))
        return sessions.connect(replace(dsn, parameters=parameters), settings=_SETTINGS)
    except ServerUnreachable as error:
        raise _not_here(f"{dsn.where} is entered through TLS only") from error


def _not_here(why: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"a test with psycopg cannot be rolled back: {why}",
        cause="what is said on its connection has to be read on the way",
        remedy='mark the test tdd(isolation="database"), or take tdd_database',
    )


def _greeting(line: PGconn) -> bytes:
    """What the server said when it let us in, as far as libpq keeps it."""
    told = b""
    for name in _TOLD:
        value = line.parameter_status(name.encode())
        if value is not None:
            told += wire.message(b"S", name.encode() + b"\0" + value + b"\0")
    key = wire.message(b"K", struct.pack("!II", line.backend_pid, 0))
    return wire.message(b"R", b"\0\0\0\0") + told + key + wire.ready(b"I")
