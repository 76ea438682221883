"""libpq over the sandbox. It wants a socket, so it gets one end of a local connection; the other end is ours.

Neither threads nor event loops are known here: who waits for the server goes on with `steps`, a generator that
says when there is something to wait for.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import select
import socket
import struct
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo, PollingStatus, TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.waiting import Ready, Wait

from dataflow.testing.isolation.refusals import limit_reached
from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.session import Session

T = TypeVar("T")

# Seconds between two looks at what no event tells of.
TICK_S = 0.1
# Seconds that a server gets to acknowledge a cancelled statement.
_CANCEL_LIMIT_S = 5.0
_CHUNK = 1 << 16
_GREETING_LIMIT_S = 10.0
_PORT = 5432
# Whatever the environment says about servers, this one is reached like that.
_WAY_IN = {
    "hostaddr": "",
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "disable",
    "require_auth": "",
    "target_session_attrs": "any",
}
_OF_PSYCOPG = ("autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory")
_INTERRUPTIONS = (KeyboardInterrupt, asyncio.CancelledError)
OVER = wire.error("57P01", "the connection was closed while a statement was under way on it")
# By which psycopg knows that a limit of its own has passed; it gives none before it has this.
_TIMED_OUT = getattr(psycopg.errors, "_WaitTimeout", psycopg.OperationalError)
# Windows has none; who comes there is told so by `line`, which therefore has to be imported.
EVENTS: dict[int, int] = (
    {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}
    if hasattr(select, "poll")
    else {}
)


class Entrance:
    """Where libpq connects to.

    :param greeting: what the server said when it let us in.
    """

    def __init__(self, greeting: bytes, user: str | None, database: str | None) -> None:
        known = {option.keyword.decode() for option in Conninfo.get_defaults()}
        way_in = {name: value for name, value in _WAY_IN.items() if name in known}
        self._address = make_conninfo(port=_PORT, user=user, dbname=database, **way_in)
        self._greeting = greeting

    def let_in(self) -> tuple[PGconn, socket.socket]:
        """A connection of libpq, and our end of it. Both are here, so nobody has to wait for anybody."""
        with _door() as (host, listener):
            pgconn = pq.PGconn.connect_start(f"{self._address} host={host}".encode())
            status: int = PollingStatus.WRITING
            while status == PollingStatus.WRITING:
                status = pgconn.connect_poll()
            if status == PollingStatus.FAILED:
                raise psycopg.OperationalError(pgconn.get_error_message())
            sock = _accepted(listener)
        size = struct.unpack("!I", sock.recv(4, socket.MSG_WAITALL))[0]
        sock.recv(size - 4, socket.MSG_WAITALL)
        sock.sendall(self._greeting)
        sock.setblocking(False)
        while status == PollingStatus.READING:
            status = pgconn.connect_poll()
        if status != PollingStatus.OK:
            sock.close()
            raise psycopg.OperationalError(pgconn.get_error_message())
        pgconn.nonblocking = 1
        return pgconn, sock


@contextmanager
def _door() -> Iterator[tuple[str, socket.socket]]:
    """A socket that listens, and what libpq calls its host."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(_GREETING_LIMIT_S)
        if sys.platform == "linux" and pq.version() >= 140000:  # a name without a file is ten times cheaper
            host = f"@tdd-{secrets.token_hex(8)}"
            listener.bind(f"\0{host[1:]}/.s.PGSQL.{_PORT}")
            listener.listen(1)
            yield host, listener
            return
        with tempfile.TemporaryDirectory(prefix="tdd-") as directory:
            listener.bind(f"{directory}/.s.PGSQL.{_PORT}")
            listener.listen(1)
            yield directory, listener


def _accepted(listener: socket.socket) -> socket.socket:
    """Ours; somebody else may have looked in."""
    while True:
        sock, _ = listener.accept()
        if sys.platform != "linux":
            return sock
        peer = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if peer == (os.getpid(), os.geteuid(), os.getegid()):
            return sock
        sock.close()


def dressed(connection: Any, conninfo: str, arguments: Mapping[str, Any]) -> None:
    """As `psycopg.connect` does with its arguments; the address in them is not needed.

    :raises psycopg.ProgrammingError: there is no such argument.
    """
    address = {name: value for name, value in arguments.items() if name not in _OF_PSYCOPG}
    if conninfo or address:
        make_conninfo(conninfo, **address)
    connection._autocommit = bool(arguments.get("autocommit", False))
    if (context := arguments.get("context")) is not None:
        connection._adapters = AdaptersMap(context.adapters)
    if "prepare_threshold" in arguments:
        connection.prepare_threshold = arguments["prepare_threshold"]
    for name in ("row_factory", "cursor_factory"):
        if arguments.get(name):
            setattr(connection, name, arguments[name])


class End:
    """Our end of a connection of libpq.

    :ivar told: why we have cancelled what was under way; empty: we have not.
    :ivar inside: it is in use. A generator of psycopg keeps a pointer to what `finish` frees, and so nobody
        finishes the connection under it.
    """

    def __init__(self, session: Session, pgconn: PGconn, sock: socket.socket) -> None:
        self.pgconn = pgconn
        self.fd = pgconn.socket
        self.closed = False
        self.inside = 0
        self._sock = sock
        self._to_driver = bytearray()
        self._fresh = False  # libpq has not looked at it since something was sent
        self._poll = select.poll()
        self._polled = 0
        self.client = session.client(self.deliver, self.hang_up)
        self._session = session
        self.told = ""

    def begin(self, limit_s: float) -> float:
        """Something is to be done by libpq. Returns until when it may take, by the monotonic clock."""
        self.told = ""
        return monotonic() + limit_s

    def check_limit(self, until: float, limit_s: float) -> None:
        """Have cancelled what takes longer; what only waits for notifications does not."""
        if monotonic() <= until or not self.client.at_work:
            return
        if not self.told:
            recorder = self._session.recorder
            last = recorder.kept[-1].sql if recorder is not None and recorder.kept else None
            self.told = limit_reached(limit_s, last)
            self.cancel()
        elif monotonic() > until + _CANCEL_LIMIT_S:
            raise psycopg.OperationalError(f"the server does not react: {self.told}")

    def cancel(self) -> None:
        """What is under way for it. Its end is awaited as usual."""
        raise NotImplementedError

    def deliver(self, said: bytes) -> None:
        """What the server says goes to libpq, as much as goes without waiting."""
        self._fresh = True
        self._to_driver += said
        self._send_most()

    def _send_most(self) -> None:
        if not self.closed:
            send_most(self._sock, self._to_driver)

    def hear(self) -> bool:
        """What libpq sends goes to the session; whether it has sent something."""
        heard = False
        if self._to_driver:
            self._send_most()
        while not self.closed:
            try:
                said = self._sock.recv(_CHUNK)
            except BlockingIOError:
                break
            if said:
                heard = True
                self.client.feed(said)
            if len(said) < _CHUNK:
                break
        return heard

    def ready(self, wanted: int) -> int:
        """What of it libpq may do with its socket now."""
        if self._fresh and wanted & Wait.R:
            self._fresh = False
            return Ready.R
        if self._polled != wanted:
            self._poll.register(self.fd, EVENTS[wanted])
            self._polled = wanted
        found = self._poll.poll(0)
        if not found:
            return Ready.NONE
        ready = Ready.W if found[0][1] & select.POLLOUT else Ready.NONE
        return ready | Ready.R if found[0][1] & ~select.POLLOUT else ready

    def hang_up(self, said: bytes = b"") -> None:
        """libpq finds the end of its connection. Idempotent. :param said: last words."""
        if not self.closed:
            self.cut(said)
            self.client.close()

    def leave(self) -> None:
        """Whoever used it is done."""
        if self.closed:
            self.pgconn.finish()
        self.inside = 0

    def cut(self, said: bytes = b"") -> None:
        """The same, when the session is none any more."""
        try:
            self.closed = True
            with suppress(OSError):  # it may take no more, or be closed
                self._sock.send(said)
        finally:
            self._sock.close()


class Waiter(Protocol):
    """Who goes on with `steps`."""

    pgconn: PGconn
    told: str

    def hear(self) -> bool: ...

    def ready(self, wanted: int) -> int: ...

    def cancel(self) -> None:
        """What is under way for it. Its end is awaited as usual."""


def steps(gen: Generator[Any, Any, T], waiter: Waiter, timeout: float | None) -> Generator[int, None, T]:
    """Go on with a generator of psycopg; yields what libpq wants when it has to be waited for.

    Thrown in, an interruption cancels the statement and is raised behind its end, as psycopg does.

    :param timeout: seconds.
    """
    try:
        return (yield from _driven(gen, None, waiter, timeout))
    except psycopg.errors.QueryCanceled as error:
        if not waiter.told:
            raise
        raise psycopg.errors.QueryCanceled(waiter.told) from error
    except _INTERRUPTIONS:
        if waiter.pgconn.transaction_status == TransactionStatus.ACTIVE:
            waiter.cancel()
            try:
                yield from _driven(gen, Ready.NONE, waiter, _CANCEL_LIMIT_S)
            except psycopg.errors.QueryCanceled:
                pass
            except BaseException:  # nobody knows what it is at
                waiter.pgconn.finish()
        raise


def _driven(
    gen: Generator[Any, Any, T], ready: int | None, waiter: Waiter, timeout: float | None
) -> Generator[int, None, T]:
    until = None if timeout is None else monotonic() + timeout
    try:
        while True:
            wanted = gen.send(ready)
            waiter.hear()
            if not (ready := waiter.ready(wanted)):
                yield wanted
                ready = waiter.ready(wanted)
            if until is not None and monotonic() >= until and not ready:
                raise _TIMED_OUT("wait timeout expired")
    except StopIteration as over:
        value: T = over.value
        return value


def send_most(sock: socket.socket, waiting: bytearray) -> None:
    """As much as goes without waiting; the rest stays."""
    while waiting:
        try:
            del waiting[: sock.send(waiting)]
        except BlockingIOError:
            return
        except OSError:  # whoever reads it finds that there is an end
            waiting.clear()
