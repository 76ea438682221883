"""Portals that have a name, as asyncpg's cursors do: on a plain connection and in the sandbox."""

from __future__ import annotations

import struct

import pytest
from tests.integration.sandbox.conftest import Box
from tests.integration.sandbox.raw import Raw

from dataflow.testing.dsn import Dsn
from dataflow.testing.sandbox import wire

SYNC = wire.SYNC
SELECT = wire.parse(b"s", "SELECT * FROM generate_series(1, 5)")
COMMIT = wire.parse(b"ends", "COMMIT") + SYNC
BEGIN, AGAIN, TWICE = wire.query("BEGIN"), wire.query("COMMIT; BEGIN"), wire.query("COMMIT AND CHAIN")
BIND = wire.bind(b"p", b"s")
ONE = wire.message(b"E", b"p\0" + struct.pack("!I", 1))
CLOSE = wire.close(b"P", b"p")
OTHER = wire.query("SELECT 1")
ENDS = wire.bind(b"", b"ends") + wire.execute(b"")

# What a driver says, up to a Sync or a Query at a time.
PROGRAMS: dict[str, list[bytes]] = {
    "bound outside of a transaction": [BIND + SYNC, ONE + SYNC],
    "bound and executed there": [BIND + ONE + ONE + SYNC, ONE + SYNC, ONE + SYNC],
    "its name is free again": [BIND + ONE + SYNC, BIND + ONE + SYNC],
    "its name is taken": [BEGIN, BIND + SYNC, BIND + SYNC, wire.query("ROLLBACK"), BIND + ONE + SYNC],
    "closed at once": [BIND + ONE + CLOSE + SYNC, BIND + ONE + SYNC],
    "a transaction of its own": [BEGIN, BIND + SYNC, ONE + SYNC, ONE + SYNC, wire.query("COMMIT"), ONE + SYNC],
    "in the next transaction": [BEGIN, BIND + SYNC, AGAIN, ONE + SYNC, wire.query("ROLLBACK"), BIND + ONE + SYNC],
    "in a chained one": [BEGIN, BIND + ONE + SYNC, TWICE, ONE + SYNC, wire.query("ROLLBACK")],
    "in one that is undone": [BEGIN, BIND + ONE + SYNC, wire.query("ROLLBACK"), ONE + SYNC],
    "closed in one": [
        BEGIN,
        BIND + SYNC,
        CLOSE + SYNC,
        BIND + SYNC,
        ONE + SYNC,
        wire.query("COMMIT"),
        ONE + SYNC,
    ],
    "bound in a savepoint": [
        BEGIN + wire.query("SAVEPOINT a"),
        BIND + SYNC,
        wire.query("ROLLBACK TO a"),
        ONE + SYNC,
        wire.query("ROLLBACK"),
        BIND + ONE + SYNC,
    ],
    "kept by a savepoint": [
        BEGIN + wire.query("SAVEPOINT a"),
        BIND + SYNC,
        wire.query("RELEASE a"),
        ONE + SYNC,
        wire.query("COMMIT"),
        ONE + SYNC,
    ],
    "behind an error": [BIND + SYNC, wire.query("SELECT 1/0"), ONE + SYNC, BIND + ONE + SYNC],
    "by an exchange that fails": [BIND + wire.bind(b"", b"missing") + SYNC, ONE + SYNC, BIND + ONE + SYNC],
    "a Query ends the exchange": [BIND + OTHER, ONE + SYNC, BIND + ONE + SYNC],
    "ended in the exchange": [COMMIT, BEGIN, BIND + ENDS + ONE + SYNC, ONE + SYNC],
    "begun in the exchange": [
        wire.parse(b"begins", "BEGIN") + SYNC,
        wire.bind(b"", b"begins") + wire.execute(b"") + BIND + ONE + SYNC,
        ONE + SYNC,
        wire.query("COMMIT"),
        ONE + SYNC,
    ],
    "closed by SQL": [BEGIN, BIND + SYNC, wire.query("CLOSE p"), BIND + SYNC, ONE + SYNC, wire.query("COMMIT")],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_portal_ends_with_its_transaction(dsn: Dsn, box: Box, name: str) -> None:
    said = []
    for address in (dsn, box.dsn):
        raw, told = Raw(address), []
        for part in [SELECT + SYNC, *PROGRAMS[name]]:
            raw.say(part)
            told.append(raw.heard(b"Z", sum(kind in b"QS" for kind in _kinds(part))))
        raw.close()
        said.append(told)
    assert said[1] == said[0]


def _kinds(said: bytes) -> bytes:
    return b"".join(message[:1] for message in wire.taken(bytearray(), said))
