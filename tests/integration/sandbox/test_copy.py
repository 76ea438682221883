"""COPY as raw messages, in orders that libraries do not use: on a plain connection and in the sandbox."""

from __future__ import annotations

from contextlib import closing

import pytest
from tests.integration.sandbox.conftest import Box
from tests.integration.sandbox.raw import Raw

from dataflow.testing.dsn import Dsn
from dataflow.testing.sandbox import wire

SYNC, FLUSH = wire.SYNC, wire.message(b"H")
START = wire.query("COPY t FROM STDIN")
PREPARE = wire.parse(b"c", "COPY t FROM STDIN")
EXECUTE = wire.bind(b"", b"c") + wire.execute(b"")
ROW, BAD = wire.message(b"d", b"50\tx\n"), wire.message(b"d", b"no number\ty\n")
DONE, FAIL = wire.message(b"c"), wire.message(b"f", b"no more\0")
INSERT = wire.parse(b"i", "INSERT INTO t VALUES (60, 'x')")
DELETE, COUNT = wire.query("DELETE FROM t WHERE id >= 50"), wire.query("SELECT count(*) FROM t")

# What a driver says, and up to which types of messages it listens then.
Program = list[tuple[bytes, bytes]]
PREPARED: Program = [(PREPARE + SYNC, b"Z"), (EXECUTE + SYNC, b"G")]
PROGRAMS: dict[str, Program] = {
    "prepared, twice": [
        *PREPARED,
        (ROW + DONE + SYNC, b"Z"),
        (DELETE, b"Z"),
        *PREPARED[1:],
        (ROW + DONE + SYNC, b"Z"),
    ],
    "its end and a Sync": [(START, b"G"), (ROW + DONE + SYNC, b"ZZ"), (COUNT, b"Z")],
    "its end and a Query": [(START, b"G"), (ROW + DONE + COUNT, b"ZZ"), (COUNT, b"Z")],
    "a row that is refused": [(START, b"G"), (BAD + DONE, b"Z"), (COUNT, b"Z")],
    "the driver gives up": [(START, b"G"), (ROW + FAIL, b"Z"), (COUNT, b"Z")],
    "prepared, a row that is refused": [*PREPARED, (BAD + DONE + SYNC, b"Z"), (COUNT, b"Z")],
    "prepared, the driver gives up": [*PREPARED, (ROW + FAIL + SYNC, b"Z"), (COUNT, b"Z")],
    "prepared, with a Flush": [PREPARED[0], (EXECUTE + FLUSH, b"G"), (BAD + DONE + SYNC, b"Z"), (COUNT, b"Z")],
    "in a transaction": [
        (wire.query("BEGIN"), b"Z"),
        *PREPARED,
        (BAD + DONE + SYNC, b"Z"),
        (COUNT, b"Z"),
        (wire.query("ROLLBACK"), b"Z"),
        (COUNT, b"Z"),
    ],
    "behind another statement": [
        (PREPARE + INSERT + SYNC, b"Z"),
        (wire.bind(b"", b"i") + wire.execute(b"") + EXECUTE + FLUSH, b"G"),
        (BAD + DONE + SYNC, b"Z"),
        (COUNT, b"Z"),
    ],
    "its table is gone, and back": [
        PREPARED[0],
        (wire.query("ALTER TABLE t RENAME TO gone"), b"Z"),
        (EXECUTE + SYNC, b"Z"),
        (wire.query("ALTER TABLE gone RENAME TO t"), b"Z"),
        *PREPARED[1:],
        (ROW + DONE + SYNC, b"Z"),
    ],
}


@pytest.mark.parametrize("deferred", [None, False], ids=["deferred", "nothing is deferred"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_copy_does_what_it_does_elsewhere(dsn: Dsn, name: str, deferred: bool | None) -> None:
    with closing(Box(dsn, deferred=deferred)) as box:
        inside = _said(box.dsn, PROGRAMS[name])
    assert inside == _said(dsn, PROGRAMS[name])


def _said(dsn: Dsn, program: Program) -> list[list[bytes]]:
    with closing(Raw(dsn)) as raw:
        said = []
        for data, until in (*program, (DELETE, b"Z")):
            raw.say(data)
            said.append(raw.heard(until[:1], len(until)))
        return said
