"""A driver that says what no library says."""

from __future__ import annotations

import socket
import struct

from dataflow.testing.dsn import Dsn
from dataflow.testing.sandbox import wire


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
        """What the server says, up to so many messages of a type; of each the type; of E and Z what they tell."""
        return [message[:1] + _told(message) for message in self.messages(until, times)]

    def messages(self, until: bytes, times: int) -> list[bytes]:
        """What the server says, up to so many messages of a type."""
        rest, kinds = bytearray(), b""
        said: list[bytes] = []
        while kinds.count(until) < times:
            more = self._sock.recv(1 << 16)
            assert more, "the server hung up"
            said += wire.taken(rest, more)
            kinds = b"".join(message[:1] for message in said)
        return said

    def close(self) -> None:
        self._sock.close()


def _told(message: bytes) -> bytes:
    if message[:1] == b"E":
        return wire.fields(message)["C"].encode()
    return message[5:] if message[:1] == b"Z" else b""
