"""What is asked when a test begins and ends, and when more than the least is asked."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.testing.isolation.questions import Asking, PreparedGone, Questions, Rows
from dataflow.testing.proof.horizon import Horizon

SAME, LATER, MUCH_LATER = "700:700:", "700:702:", "700:705:"


def asked(
    asking: Asking[Any],
    snapshot: str,
    *,
    deferred: bool = False,
    committed: str | None = None,
    gone: bool = False,
) -> tuple[list[str], Any]:
    """The questions, and what came of a server's answers. :param gone: it has no prepared statements any more."""
    sent: list[str] = []
    question = next(asking)
    try:
        while True:
            sent.append(question)
            if gone and "EXECUTE" in question:
                question = asking.throw(PreparedGone())
            else:
                question = asking.send(_rows(question, snapshot, deferred=deferred, committed=committed))
    except StopIteration as over:
        return sent, over.value


def _rows(question: str, snapshot: str, *, deferred: bool, committed: str | None) -> Rows:
    rows: list[tuple[str | None, ...]] = []
    if "pg_current_wal_insert_lsn" in question or "EXECUTE dataflow_tdd_horizon" in question:
        rows.append(("0/3000000", snapshot, "697"))
    if "condeferred" in question or "EXECUTE dataflow_tdd_deferred" in question:
        rows.append(("t" if deferred else "f",))
    if "ROLLBACK;" in question or _asks_which(question):
        rows.append(("", committed if _asks_which(question) else None, snapshot))
    return rows


def _asks_which(question: str) -> bool:
    """It is asked which transactions were committed."""
    return "EXECUTE dataflow_tdd_committed" in question or "pg_xact_status" in question.split("PREPARE")[0]


def begun(questions: Questions, snapshot: str, **told: Any) -> tuple[list[str], bool]:
    sent, answer = asked(questions.begin("BEGIN"), snapshot, **told)
    assert answer.horizon.snapshot == snapshot
    return sent, answer.deferred


def ended(
    questions: Questions, first: str, last: str, *, used: bool = False, **told: Any
) -> tuple[list[str], tuple[int, ...]]:
    return asked(questions.end("ROLLBACK", Horizon("0/3000000", first, 700), used=used), last, **told)


def after(tests: int) -> Questions:
    questions = Questions()
    for _ in range(tests):
        begun(questions, SAME)
        ended(questions, SAME, SAME)
    return questions


def test_the_first_test_asks_for_constraints_and_prepares_nothing() -> None:
    questions = Questions()
    first, deferred = begun(questions, SAME, deferred=True)
    last, committed = ended(questions, SAME, SAME)
    assert deferred
    assert committed == ()
    assert (len(first), len(last)) == (2, 1)
    assert not [question for question in first + last if "PREPARE" in question or "EXECUTE" in question]


def test_what_is_asked_of_all_is_prepared_at_the_end_of_the_second() -> None:
    questions = after(1)
    (first,), _ = begun(questions, SAME)
    assert "EXECUTE" not in first
    (last,), _ = ended(questions, SAME, SAME)
    assert last.count("PREPARE") == 4
    begun(questions, SAME)
    ended(questions, SAME, SAME)
    assert begun(questions, SAME)[0] == ["BEGIN; EXECUTE dataflow_tdd_horizon"]
    (last,), _ = ended(questions, SAME, SAME)
    assert last.endswith("; EXECUTE dataflow_tdd_snapshot")


def test_who_was_at_work_between_two_tests_may_have_made_constraints() -> None:
    sent, deferred = begun(after(3), LATER, deferred=True)
    assert sent == ["BEGIN; EXECUTE dataflow_tdd_horizon", "EXECUTE dataflow_tdd_deferred"]
    assert deferred


def test_where_others_are_at_work_all_is_asked_at_once_and_where_they_are_done_no_more() -> None:
    questions = after(3)
    begun(questions, LATER)
    ended(questions, LATER, LATER)
    both = ["BEGIN; EXECUTE dataflow_tdd_horizon; EXECUTE dataflow_tdd_deferred"]
    assert begun(questions, MUCH_LATER, deferred=True) == (both, True)
    ended(questions, MUCH_LATER, MUCH_LATER)
    assert begun(questions, MUCH_LATER) == (both, True), "nobody was there who could have dropped it"
    ended(questions, MUCH_LATER, MUCH_LATER)
    assert begun(questions, MUCH_LATER) == (["BEGIN; EXECUTE dataflow_tdd_horizon"], True)


def test_if_a_transaction_ended_meanwhile_it_is_asked_which_were_committed() -> None:
    questions = after(3)
    begun(questions, SAME)
    sent, committed = ended(questions, SAME, LATER, committed="{701}")
    assert committed == (701,)
    assert len(sent) == 2
    begun(questions, LATER)
    (sent_at_once,), committed = ended(questions, LATER, MUCH_LATER, committed="{702,704}")
    assert committed == (702, 704)
    assert sent_at_once.endswith(f"EXECUTE dataflow_tdd_committed ('{LATER}')")
    begun(questions, MUCH_LATER)
    assert ended(questions, MUCH_LATER, MUCH_LATER)[1] == ()
    begun(questions, MUCH_LATER)
    assert ended(questions, MUCH_LATER, MUCH_LATER)[0][-1].endswith("EXECUTE dataflow_tdd_snapshot")


def test_at_the_end_of_a_test_that_has_sent_something_all_is_asked_at_once() -> None:
    questions = after(3)
    begun(questions, SAME)
    (sent,), committed = ended(questions, SAME, LATER, used=True, committed="{701}")
    assert committed == (701,)
    assert sent.endswith(f"EXECUTE dataflow_tdd_committed ('{SAME}')")


def test_who_committed_while_a_test_ran_may_have_made_constraints() -> None:
    questions = after(3)
    begun(questions, SAME)
    ended(questions, SAME, LATER, committed="{701}")
    assert begun(questions, LATER, deferred=True)[1]


def test_what_was_prepared_may_be_gone_when_a_test_begins() -> None:
    questions = after(3)
    sent, deferred = begun(questions, LATER, deferred=True, gone=True)
    assert deferred
    assert sent[1] == "ROLLBACK"
    assert "EXECUTE" not in "".join(sent[2:])


@pytest.mark.parametrize("used", [False, True])
def test_what_was_prepared_may_be_gone_when_a_test_ends(used: bool) -> None:
    questions = after(3)
    begun(questions, SAME)
    sent, committed = ended(questions, SAME, LATER, used=used, committed="{701}", gone=True)
    assert committed == (701,)
    assert len(sent) == 2
    assert "ROLLBACK;" not in sent[1]
    assert "PREPARE" not in sent[1]
    begun(questions, LATER)
    assert "PREPARE" in ended(questions, LATER, LATER)[0][0]


def test_some_of_what_was_prepared_may_be_gone() -> None:
    """The code under test may know the names."""
    questions = after(3)
    asking = questions.begin("BEGIN")
    next(asking)
    assert asking.send([("0/3000000", LATER, "697")]) == "EXECUTE dataflow_tdd_deferred"
    assert asking.throw(PreparedGone()) == "ROLLBACK"
    assert "EXECUTE" not in asking.send([])
