"""A server's socket in this process, behind which each driver is in the sandbox: any driver, as it is."""

from __future__ import annotations

import secrets
import select
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import psycopg
import pytest

from dataflow.testing.dsn import Dsn
from dataflow.testing.sandbox.client import Client
from dataflow.testing.sandbox.session import Session
from dataflow.testing.server.protocol import TEST_ROLE

_READY = b"Z\0\0\0\5"
_AUTHENTICATED = b"R\0\0\0\x08\0\0\0\0"
_VERSION = b"\0\3"


class Box:
    """One session of the server in a transaction; whoever connects to `dsn` shares it.

    :param deferred: the database has constraints INITIALLY DEFERRED; None: it is not known.
    """

    def __init__(self, dsn: Dsn, *, deferred: bool | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="b-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._directory.name}/.s.PGSQL.5432")
        self._listener.listen()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(f"{dsn.host}/.s.PGSQL.{dsn.port}")
        self._greeting = self._enter(dsn)
        self._ask("BEGIN")
        self.dsn = Dsn(self._directory.name, 5432, dsn.user, None, dsn.database)
        self.session = Session(self._server.sendall)
        self.session.enter(deferred=deferred)
        self._clients: dict[socket.socket, Client] = {}
        self._over = False
        self._thread = threading.Thread(target=self._run, name="the sandbox", daemon=True)
        self._thread.start()

    def close(self) -> str:
        """Roll back; what the server answered."""
        self._over = True
        self._thread.join(10)
        for sock in (*self._clients, self._listener):
            sock.close()
        said = self._ask("ROLLBACK")
        self._server.close()
        self._directory.cleanup()
        return said.decode(errors="replace")

    def _enter(self, dsn: Dsn) -> bytes:
        names = {"user": dsn.user or "", "database": dsn.database or "", "client_encoding": "UTF8"}
        body = _VERSION + b"\0\0" + b"".join(f"{k}\0{v}\0".encode() for k, v in names.items()) + b"\0"
        self._server.sendall(struct.pack("!I", len(body) + 4) + body)
        said = self._heard()
        return said[said.index(_AUTHENTICATED) :]

    def _ask(self, sql: str) -> bytes:
        body = sql.encode() + b"\0"
        self._server.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)
        return self._heard()

    def _heard(self) -> bytes:
        said = b""
        while said[-6:-1] != _READY:
            said += self._server.recv(65536)
        return said

    def _run(self) -> None:
        while not self._over:
            readable, _, _ = select.select([self._listener, self._server, *self._clients], [], [], 0.05)
            for sock in readable:
                self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        if sock is self._listener:
            self._let_in(sock.accept()[0])
            return
        said = sock.recv(65536)
        if sock is self._server:
            self.session.feed(said)
        elif said and said != b"X\0\0\0\4":
            self._clients[sock].feed(said)
        else:
            self._clients.pop(sock).close()
            sock.close()

    def _let_in(self, sock: socket.socket) -> None:
        while not self._received(sock, struct.unpack("!I", self._received(sock, 4))[0] - 4).startswith(_VERSION):
            sock.sendall(b"N")  # it asked for encryption
        sock.sendall(self._greeting)
        self._clients[sock] = self.session.client(_sender(sock))

    @staticmethod
    def _received(sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += sock.recv(size - len(data))
        return data


def _sender(sock: socket.socket) -> Callable[[bytes], None]:
    def send(data: bytes) -> None:
        with suppress(OSError):  # it may have gone
            sock.sendall(data)

    return send


SCHEMA = """
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE child (
  id int PRIMARY KEY,
  t int REFERENCES t DEFERRABLE INITIALLY DEFERRED,
  u int UNIQUE DEFERRABLE
);
"""
SEEDS = "TRUNCATE t, child; INSERT INTO t VALUES (1, 'one'), (2, 'two')"


@pytest.fixture(scope="module")
def dsn(admin_dsn: Dsn) -> Iterator[Dsn]:
    """A database with a few tables, as the role of the tests."""
    name = f"sandbox_test_{secrets.token_hex(4)}"
    admin = psycopg.connect(admin_dsn.with_database("postgres").url(), autocommit=True)
    with closing(admin):
        admin.execute(f'CREATE DATABASE "{name}" OWNER {TEST_ROLE}'.encode())
        dsn = Dsn(admin_dsn.host, admin_dsn.port, TEST_ROLE, admin_dsn.password, name)
        with psycopg.connect(dsn.url(), autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.execute(SEEDS)
        yield dsn
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture
def box(dsn: Dsn) -> Iterator[Box]:
    """It leaves nothing in the database."""
    with closing(Box(dsn)) as box:
        yield box
