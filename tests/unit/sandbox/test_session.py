"""One session and its drivers, without a server: what comes in pieces, at the wrong time, or not at all."""

from __future__ import annotations

import pytest

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.answer import Answer
from dataflow.testing.sandbox.client import Client
from dataflow.testing.sandbox.session import Session

NOTICE = wire.message(b"N", b"SNOTICE\0Mnothing\0\0")
SETTING = wire.message(b"S", b"TimeZone\0UTC\0")
LAST_WORDS = wire.message(b"E", b"SFATAL\0C57P01\0Mterminating connection\0\0")
ROW = wire.message(b"D", b"\0\2" + b"\0\0\0\3abc" + b"\xff\xff\xff\xff")
PREPARED = wire.parse(b"st", "SELECT 1") + wire.message(b"D", b"Sst\0") + wire.message(b"H")


class Place:
    """:ivar sent: to the server. :ivar said: to the driver. :ivar told: so often somebody was told an answer."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.said: list[bytes] = []
        self.told = 0
        self.session = Session(self.sent.append)
        self.client = self.session.client(self.said.append)
        self.session.enter(deferred=False)

    def ask(self) -> Answer:
        answer = Answer(self._told)
        self.session.ask("SELECT", answer)
        return answer

    def _told(self) -> None:
        self.told += 1

    def leave_open(self, client: Client | None = None) -> None:
        """A driver prepares a statement, and does not say yet what it does with it."""
        (client or self.client).feed(PREPARED)
        self.session.feed(wire.complete(b"SAVEPOINT") + wire.ready(b"T"))
        self.session.feed(wire.message(b"1") + wire.message(b"t", b"\0\0") + wire.message(b"n"))
        assert self.session.busy
        assert self.session.free


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_answer_comes_in_pieces_and_with_other_things_in_between(place: Place, size: int) -> None:
    answer = place.ask()
    said = NOTICE + ROW + SETTING + ROW + wire.complete(b"SELECT 2") + wire.ready(b"T") + SETTING
    for start in range(0, len(said), size):
        place.session.feed(said[start : start + size])
    assert answer.rows == [("abc", None)] * 2
    assert answer.error is None
    assert not answer.outside
    assert place.told == 1
    assert place.said == [SETTING], "what comes behind it is for drivers"
    assert not place.session.lost


def test_an_answer_may_be_an_error_and_tell_that_the_transaction_is_left(place: Place) -> None:
    answer = place.ask()
    place.session.feed(wire.error("25P01", "there is no transaction") + wire.ready(b"I"))
    assert answer.error is not None
    assert answer.error["C"] == "25P01"
    assert place.session.lost


def test_a_question_is_answered_behind_the_end_of_what_a_driver_left_open(place: Place) -> None:
    place.leave_open()
    answer = place.ask()
    place.session.feed(wire.ready(b"T"))
    assert place.sent[-1] == wire.query("SELECT")
    place.session.feed(ROW + wire.ready(b"T"))
    assert answer.rows == [("abc", None)]


@pytest.mark.parametrize("given_up", [False, True], ids=["nothing prepared", "statements of one that left"])
def test_a_question_is_answered_when_the_server_is_gone(place: Place, given_up: bool) -> None:
    if given_up:
        other = place.session.client(lambda _said: None)
        place.leave_open(other)
        other.close()
        place.session.feed(wire.ready(b"T"))
        assert not place.session.busy
    answer = place.ask()
    place.session.hang_up()
    assert place.told == 1
    assert answer.error is not None
    assert answer.error["C"] == "08006"
    assert not place.session.busy


def test_so_is_one_that_waits_for_the_end_of_what_a_driver_left_open(place: Place) -> None:
    place.leave_open()
    answer = place.ask()
    place.session.hang_up()
    assert place.told == 1
    assert answer.error is not None


@pytest.mark.parametrize("words", [LAST_WORDS, SETTING])
def test_what_the_server_says_while_a_driver_has_left_something_open_is_for_it(
    place: Place, words: bytes
) -> None:
    place.leave_open()
    place.said.clear()
    place.session.feed(words)
    assert place.said == [words]


def test_nothing_is_left_to_do_for_a_portal_that_was_closed(place: Place) -> None:
    place.client.feed(wire.query("BEGIN"))
    place.session.feed(
        (wire.complete(b"SAVEPOINT") + wire.ready(b"T")) + (wire.complete(b"SET") + wire.ready(b"T"))
    )
    place.client.feed(wire.bind(b"p", b"st") + wire.SYNC)
    place.session.feed(wire.message(b"2") + wire.ready(b"T"))
    place.client.feed(wire.close(b"P", b"p") + wire.SYNC)
    place.session.feed(wire.message(b"3") + wire.ready(b"T"))
    place.client.feed(wire.query("COMMIT"))
    assert place.sent[-1] == wire.query("RELEASE SAVEPOINT dataflow_tdd")


def test_a_statement_whose_closing_is_skipped_is_closed_behind_its_driver(place: Place) -> None:
    place.client.feed(wire.parse(b"st", "SELECT 1") + wire.SYNC)
    place.session.feed(wire.complete(b"SAVEPOINT") + wire.ready(b"T") + wire.message(b"1") + wire.ready(b"T"))
    place.client.feed(wire.bind(b"", b"missing") + wire.close(b"S", b"st") + wire.SYNC)
    place.client.close()
    place.session.feed(wire.complete(b"RELEASE") + wire.complete(b"SAVEPOINT") + wire.ready(b"T"))
    place.session.feed(wire.error("26000", "there is no such statement") + wire.ready(b"E"))
    place.ask()
    assert place.sent[-1] == wire.close(b"S", b"st") + wire.SYNC + wire.query("SELECT")
