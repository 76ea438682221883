"""What comes as a whole is forwarded, answered and recorded as what comes message by message."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.recording import Recorder
from dataflow.testing.sandbox.session import Session

NOTICE = wire.message(b"N", b"SNOTICE\0Mnothing\0\0")
MISSING = wire.error("26000", "there is no such statement")
PORTAL, STATEMENT = (wire.message(b"D", what) for what in (b"P\0", b"Sone\0"))
ONE = wire.parse(b"one", "SELECT 1") + wire.SYNC
BEGIN = wire.query("BEGIN")
ENDS = wire.parse(b"ends", "COMMIT") + wire.SYNC


def executed(name: bytes, described: bytes = b"", *, portal: bytes = b"", other: bytes | None = None) -> bytes:
    return wire.bind(portal, name) + described + wire.execute(portal if other is None else other)


# What a driver says, exchange by exchange.
PROGRAMS: dict[str, list[bytes]] = {
    "as asyncpg": [ONE, executed(b"one") + wire.SYNC, executed(b"one") + wire.SYNC],
    "as libpq": [ONE, executed(b"one", PORTAL) + wire.SYNC, executed(b"one", PORTAL) + wire.SYNC],
    "its statement described": [ONE, executed(b"one", STATEMENT) + wire.SYNC],
    "described twice": [ONE, executed(b"one", PORTAL + PORTAL) + wire.SYNC],
    "in a transaction": [BEGIN, ONE, executed(b"one") + wire.SYNC, executed(b"one", PORTAL) + wire.SYNC],
    "of a statement that is not there": [ONE, executed(b"missing") + wire.SYNC, executed(b"one") + wire.SYNC],
    "behind an error": [
        ONE,
        wire.parse(b"missing", "SELECT 2") + wire.SYNC,
        executed(b"missing") + wire.SYNC,
        executed(b"one") + wire.SYNC,
        executed(b"one") + wire.SYNC,
    ],
    "without a name": [wire.parse(b"", "SELECT 1") + wire.SYNC, executed(b"") + wire.SYNC],
    "one that begins": [wire.parse(b"begins", "BEGIN") + wire.SYNC, executed(b"begins") + wire.SYNC],
    "one that ends": [BEGIN, ENDS, executed(b"ends") + wire.SYNC],
    "another portal than that": [BEGIN, ONE, executed(b"one", other=b"else") + wire.SYNC],
    "a portal with a name": [ONE, executed(b"one", portal=b"its") + wire.SYNC],
    "over a portal that was not executed": [
        BEGIN,
        ENDS,
        ONE,
        wire.bind(b"", b"ends") + wire.SYNC,
        executed(b"one") + wire.SYNC,
        wire.execute(b"") + wire.SYNC,
        executed(b"one") + wire.SYNC,
    ],
    "two in one exchange": [ONE, executed(b"one") * 2 + wire.SYNC, executed(b"one") + wire.SYNC],
    "it is left open": [ONE, executed(b"one") + wire.message(b"H"), wire.SYNC, executed(b"one") + wire.SYNC],
}


_ANSWERS = {
    b"P": wire.message(b"1"),
    b"B": wire.message(b"2"),
    b"D": wire.message(b"n"),
    b"E": wire.complete(b"DO"),
    b"C": wire.message(b"3"),
}


class Server:
    """Answers what it is sent. :param notices: a notice comes before each answer to a Query."""

    def __init__(self, *, notices: bool) -> None:
        self.sent = b""
        self._answered = 0
        self._notice = NOTICE if notices else b""
        self._failed = self._skips = False

    def send(self, data: bytes) -> None:
        self.sent += data

    def say(self, session: Session) -> None:
        while said := self.sent[self._answered :]:
            self._answered = len(self.sent)
            session.feed(b"".join(map(self._answer, wire.taken(bytearray(), said))))

    def _answer(self, message: bytes) -> bytes:
        kind = message[:1]
        if kind == b"Q":
            tags = [sql.partition(" ")[0].encode() for sql in message[5:-1].decode().split(";")]
            self._failed = self._failed and tags != [b"ROLLBACK"]
            return self._notice + b"".join(map(wire.complete, tags)) + self._ready
        if kind == b"S":
            self._skips = False
            return self._ready
        if self._skips or kind == b"H":
            return b""
        if kind == b"B" and b"missing" in message:
            self._failed = self._skips = True
            return MISSING
        return _ANSWERS[kind]

    @property
    def _ready(self) -> bytes:
        return wire.ready(b"E" if self._failed else b"T")


class Seen(NamedTuple):
    sent: bytes
    said: bytes
    statements: list[tuple[str, str | None, int]]


def run(program: list[bytes], *, at_once: bool, second: bool, deferred: bool, notices: bool) -> Seen:
    """:param second: by a driver whose names have a prefix. :param deferred: constraints may be."""
    said: list[bytes] = []
    server = Server(notices=notices)
    session = Session(server.send)
    if second:
        session.client(lambda _said: None)
    driver = session.client(said.append)
    session.recorder = Recorder(lambda: "call")
    session.enter(deferred=deferred)
    for exchange in program:
        for piece in [exchange] if at_once else wire.taken(bytearray(), exchange):
            driver.feed(piece)
        server.say(session)
    recorded = session.recorder.statements
    return Seen(server.sent, b"".join(said), [(each.sql, each.error, each.times) for each in recorded])


@pytest.mark.parametrize("notices", [False, True])
@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("second", [False, True], ids=["the only driver", "another driver"])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_same_is_sent_said_and_recorded(
    program: list[bytes], second: bool, deferred: bool, notices: bool
) -> None:
    whole = run(program, at_once=True, second=second, deferred=deferred, notices=notices)
    assert whole.said.count(wire.ready(b"I")) + whole.said.count(wire.ready(b"T")) >= len(program) - 1
    assert whole == run(program, at_once=False, second=second, deferred=deferred, notices=notices)
