"""The verdict on the state of a transaction, and the words for a recovery."""

from __future__ import annotations

import pytest

from dataflow.testing.diagnosis.recovery import Outcome, describe_recovery
from dataflow.testing.diagnosis.transaction import Facts, State, describe_transaction


def test_an_open_transaction_shows_id_level_and_savepoints() -> None:
    found = describe_transaction(Facts(State.OPEN, "742", "serializable", ("a", "b"), "sp_1"))
    assert found
    text = str(found)
    assert "transaction id: 742" in text
    assert "isolation level: serializable" in text
    assert "- sp_1\n              - a\n              - b" in text


def test_without_an_id_nothing_was_written() -> None:
    assert "none: nothing was written" in str(describe_transaction(Facts(State.OPEN, None, "x", ())))


def test_an_idle_connection_is_fine_unless_a_test_should_be_in_a_transaction() -> None:
    assert describe_transaction(Facts(State.IDLE))
    left = describe_transaction(Facts(State.IDLE, savepoints=(), test_savepoint="sp_1"))
    assert not left
    assert "the test ended the transaction that isolates it" in str(left)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State.ABORTED, "recover_from_savepoint_error"),
        (State.BUSY, "a connection of its own"),
        (State.CLOSED, "the next test gets a new one"),
        (State.BROKEN, "end this test"),
        (State.UNREACHABLE, "take the connection from tdd_test_context"),
    ],
)
def test_every_problem_has_a_cause_and_a_way_out(state: State, words: str) -> None:
    found = describe_transaction(Facts(state))
    assert not found
    (failed,) = found.failed
    assert failed.cause
    assert words in (failed.remedy or "")


def test_savepoints_of_a_foreign_connection_are_unknown_not_none() -> None:
    assert "PostgreSQL does not list them" in str(describe_transaction(Facts(State.OPEN, "1", "x")))


@pytest.mark.parametrize(
    ("outcome", "usable"),
    [(Outcome.SAVEPOINT, True), (Outcome.TRANSACTION, True), (Outcome.BROKEN, False)],
)
def test_a_recovery_is_true_when_the_connection_can_be_used(outcome: Outcome, usable: bool) -> None:
    recovery = describe_recovery(outcome, ())
    assert bool(recovery) is usable
    assert recovery.outcome is outcome


def test_a_new_transaction_is_not_sold_as_proof_of_isolation() -> None:
    assert "nobody can tell" in str(describe_recovery(Outcome.TRANSACTION, ()))
