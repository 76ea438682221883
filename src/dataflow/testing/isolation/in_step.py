"""psycopg in the sandbox, in one thread: while libpq waits for the server, its bytes are carried there and back.

libpq wants a socket, so it gets one end of a local connection; a `psycopg.Connection` lets a subclass do the
waiting, which is where the other end is served. No thread has to be woken up for a statement.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import tempfile
import threading
from collections.abc import Generator
from dataclasses import replace
from typing import Any, TypeVar, cast

import psycopg
from psycopg.pq.abc import PGconn
from psycopg.waiting import Ready, Wait

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerUnreachable
from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.answer import Answer
from dataflow.testing.sandbox.client import Client
from dataflow.testing.sandbox.session import Session
from dataflow.testing.template import session as sessions

T = TypeVar("T")

_CHUNK = 1 << 16
_SETTINGS = {"jit": "off"}
_GREETING_LIMIT_S = 10.0
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
    """A session of the server, reached without an event loop.

    :param limit_s: seconds that the server may take for an answer.
    :raises ServerUnreachable: it cannot be entered, or only through TLS.
    """

    def __init__(self, dsn: Dsn, limit_s: float) -> None:
        self._entered = _entered(dsn)
        self._server = socket.socket(fileno=os.dup(self._entered.pgconn.socket))
        self._server.setblocking(False)
        self._to_server = bytearray()
        self._limit_s = limit_s
        self.dsn = dsn
        self.backend_pid = self._entered.info.backend_pid
        self.greeting = _greeting(self._entered.pgconn)
        self.session = Session(self._to_server.extend)

    def ask(self, sql: str) -> list[tuple[str | None, ...]]:
        """Send a Query around the sandbox; returns the rows, as text.

        :raises psycopg.Error: what the server said.
        """
        answer = Answer()
        self.session.ask(sql, answer.heard)
        while not answer.over:
            self.carry()
        if answer.error is not None:
            raise psycopg.errors.lookup(answer.error["C"])(answer.error["M"])
        return answer.rows

    def carry(self, *others: socket.socket) -> None:
        """Send what is to be sent and hear what was said; waits until there is something, or `others` have."""
        self._flush()
        writes = [self._server] if self._to_server else []
        readable, writable, _ = select.select([self._server, *others], writes, [], self._limit_s)
        if not readable and not writable:
            raise psycopg.OperationalError(f"the server has not answered for {self._limit_s:g} s")
        if self._server in readable:
            said = self._server.recv(_CHUNK)
            if not said:
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            self.session.feed(said)
        self._flush()

    def settle(self) -> None:
        """Hear the end of what was interrupted."""
        while self.session.busy:
            self.carry()

    def _flush(self) -> None:
        _send_most(self._server, self._to_server)

    def close(self) -> None:
        self._server.close()
        self._entered.close()


class SandboxedConnection(psycopg.Connection[Any]):
    """A connection of psycopg in the transaction of a test."""

    _line: Line
    _end: _End

    def wait(self, gen: Generator[Any, Any, T], *_arguments: Any, **_options: Any) -> T:
        """As psycopg's, and in the meantime its bytes are carried."""
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(self._end.until_ready(self.pgconn.socket, wanted))
        except StopIteration as ended:
            value: T = ended.value
            return value

    def close(self) -> None:
        super().close()
        self._end.close()


class _End:
    """The other end of libpq's connection."""

    def __init__(self, line: Line, sock: socket.socket) -> None:
        self._line = line
        self._sock = sock
        self._to_driver = bytearray()
        self._client: Client = line.session.client(self._to_driver.extend)

    def until_ready(self, fd: int, wanted: int) -> int:
        """Carry on until libpq may do what it wants to do with its socket."""
        while True:
            self._hear()
            if self._client.waits and not self._line.session.busy:
                self._client.refuse_turn(_ITS_TURN_WILL_NOT_COME)
            _send_most(self._sock, self._to_driver)
            reads, writes = [fd] if wanted & Wait.R else [], [fd] if wanted & Wait.W else []
            readable, writable, _ = select.select(reads, writes, [], 0)
            if readable or writable:
                return (Ready.R if readable else 0) | (Ready.W if writable else 0)
            self._line.carry(self._sock)

    def close(self) -> None:
        self._client.close()
        self._sock.close()

    def _hear(self) -> None:
        while True:
            try:
                said = self._sock.recv(_CHUNK)
            except BlockingIOError:
                return
            if not said:
                return
            self._client.feed(said)


def _send_most(sock: socket.socket, waiting: bytearray) -> None:
    """As much as goes without waiting; the rest stays."""
    while waiting:
        try:
            del waiting[: sock.send(waiting)]
        except BlockingIOError:
            return


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


def connect(line: Line, **arguments: Any) -> SandboxedConnection:
    """A connection of psycopg over a line; several may be open, and take turns.

    :param arguments: for `psycopg.connect`, such as `autocommit` and `row_factory`.
    """
    with tempfile.TemporaryDirectory(prefix="tdd-") as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/.s.PGSQL.5432")
        listener.listen(1)
        listener.settimeout(_GREETING_LIMIT_S)
        accepted: list[socket.socket] = []
        greeter = threading.Thread(target=_greet, args=(listener, line.greeting, accepted), daemon=True)
        greeter.start()
        where = {"host": directory, "port": 5432, "user": line.dsn.user, "dbname": line.dsn.database}
        connection: SandboxedConnection = SandboxedConnection.connect(**cast("Any", where | arguments))
        greeter.join()
    connection._line = line
    connection._end = _End(line, accepted[0])
    return connection


def _greet(listener: socket.socket, greeting: bytes, accepted: list[socket.socket]) -> None:
    sock, _ = listener.accept()
    size = struct.unpack("!I", sock.recv(4, socket.MSG_WAITALL))[0]
    sock.recv(size - 4, socket.MSG_WAITALL)
    sock.sendall(greeting)
    sock.setblocking(False)
    accepted.append(sock)


def _greeting(line: PGconn) -> bytes:
    """What the server said when it let us in, as far as libpq keeps it."""
    told = b""
    for name in _TOLD:
        value = line.parameter_status(name.encode())
        if value is not None:
            told += wire.message(b"S", name.encode() + b"\0" + value + b"\0")
    key = wire.message(b"K", struct.pack("!II", line.backend_pid, 0))
    return wire.message(b"R", b"\0\0\0\0") + told + key + wire.ready(b"I")
