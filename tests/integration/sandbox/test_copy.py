"""COPY as raw messages, in orders that libraries do not use: on a plain connection and in the sandbox."""

from __future__ import annotations

import socket
import struct

import pytest
from tests.integration.sandbox.conftest import Box

from dataflow.testing.dsn import Dsn
from dataflow.testing.sandbox import wire

START = wire.query("COPY t FROM STDIN")
ROWS = wire.message(b"d", b"50\tx\n") + wire.message(b"c")


class Raw:
    """A driver that says what it wants."""

    def __init__(self, dsn: Dsn) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(20)
        self._sock.connect(f"{dsn.host}/.s.PGSQL.{dsn.port}")
        names = f"user\0{dsn.user}\0database\0{dsn.database}\0\0".encode()
        self._sock.sendall(struct.pack("!II", len(names) + 8, 196608) + names)
        self.heard(b"Z", 1)

    def say(self, data: bytes) -> None:
        self._sock.sendall(data)

    def heard(self, until: bytes, times: int) -> list[bytes]:
        """What the server says, up to so many messages of a type; of each the type, and what a Z tells."""
        rest, kinds = bytearray(), b""
        told = []
        while kinds.count(until) < times:
            more = self._sock.recv(1 << 16)
            assert more, "the server hung up"
            for message in wire.taken(rest, more):
                kinds += message[:1]
                told.append(message[:1] + (message[5:] if message[:1] == b"Z" else b""))
        return told

    def close(self) -> None:
        self._sock.close()


def test_it_may_be_prepared_before(dsn: Dsn, box: Box) -> None:
    execute = wire.bind(b"", b"c") + wire.execute(b"") + wire.SYNC
    said = []
    for address in (dsn, box.dsn):
        raw = Raw(address)
        raw.say(wire.parse(b"c", "COPY t FROM STDIN") + wire.SYNC)
        told = raw.heard(b"Z", 1)
        for _ in range(2):
            raw.say(execute)
            told += raw.heard(b"G", 1)
            raw.say(ROWS + wire.SYNC)
            told += raw.heard(b"Z", 1)
            raw.say(wire.query("DELETE FROM t WHERE id = 50"))
            told += raw.heard(b"Z", 1)
        said.append(told)
        raw.close()
    assert said[0] == said[1]


@pytest.mark.parametrize("behind", [wire.SYNC, wire.query("SELECT 1")], ids=["Sync", "Query"])
def test_something_may_be_sent_together_with_its_end(dsn: Dsn, box: Box, behind: bytes) -> None:
    said = []
    for address in (dsn, box.dsn):
        raw = Raw(address)
        raw.say(START)
        told = raw.heard(b"G", 1)
        raw.say(ROWS + behind)
        told += raw.heard(b"Z", 2)
        raw.say(wire.query("DELETE FROM t WHERE id = 50"))
        said.append(told + raw.heard(b"Z", 1))
        raw.close()
    assert said[0] == said[1]
