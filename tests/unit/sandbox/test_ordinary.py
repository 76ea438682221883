"""What comes as a whole is forwarded, answered and recorded as what comes message by message."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from dataflow.testing.sandbox import forwarding, wire
from dataflow.testing.sandbox import session as session_module
from dataflow.testing.sandbox.conversation import Conversation, Exchange
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
    "another portal with a name": [BEGIN, ONE, executed(b"one", portal=b"its", other=b"") + wire.SYNC],
    "a copy": [wire.parse(b"one", "COPY t FROM STDIN") + wire.SYNC, executed(b"one") + wire.SYNC],
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

    def say(self, session: Session, size: int) -> None:
        """:param size: of the pieces, in bytes."""
        while said := self.sent[self._answered :]:
            self._answered = len(self.sent)
            answer = b"".join(map(self._answer, wire.taken(bytearray(), said)))
            for start in range(0, len(answer), size):
                session.feed(answer[start : start + size])

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


def run(
    program: list[bytes], *, at_once: bool, second: bool, deferred: bool, notices: bool = False, size: int = 1000
) -> Seen:
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
        server.say(session, size)
    recorded = session.recorder.statements
    return Seen(server.sent, b"".join(said), [(each.sql, each.error, each.times) for each in recorded])


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("second", [False, True], ids=["the only driver", "another driver"])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_same_is_sent_said_and_recorded(program: list[bytes], second: bool, deferred: bool) -> None:
    message_by_message = run(program, at_once=False, second=second, deferred=deferred)
    readies = sum(message_by_message.said.count(wire.ready(status)) for status in (b"I", b"T", b"E"))
    assert readies == sum(exchange.endswith(wire.SYNC) or exchange[:1] == b"Q" for exchange in program)
    for size in (1000, 7, 1):
        for notices in (False, True):  # those of our own statements are for nobody
            whole = run(program, at_once=True, second=second, deferred=deferred, notices=notices, size=size)
            if notices and BEGIN in program:  # that is a statement of the driver
                whole = whole._replace(said=whole.said.replace(NOTICE, b""))
            assert whole == message_by_message


@pytest.mark.parametrize(
    ("name", "whole"), [("as asyncpg", True), ("as libpq", True), ("in a transaction", True), ("a copy", False)]
)
def test_it_goes_through_as_a_whole(name: str, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    forwarded: list[bytes] = []

    def forward(talk: Conversation, exchange: Exchange, kind: bytes, message: bytes) -> None:
        forwarded.append(kind)
        forwarding.forward(talk, exchange, kind, message)

    monkeypatch.setattr(session_module, "forward", forward)
    run(PROGRAMS[name], at_once=True, second=True, deferred=False)
    assert (b"E" not in forwarded) is whole
