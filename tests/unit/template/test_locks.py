"""Locks by number, and their holders in words."""

from __future__ import annotations

from dataflow.testing.template.locks import Lock, Right, holder_text, listed


def test_arguments_fit_what_postgresql_takes_and_pg_locks_shows() -> None:
    low, high = Lock(Right.USE, "7fffffff" + "0" * 8), Lock(Right.USE, "ffffffff" + "0" * 8)
    assert (low.number, low.arguments) == (2**31 - 1, (int(Right.USE), 2**31 - 1))
    assert (high.number, high.arguments) == (2**32 - 1, (int(Right.USE), -1))
    assert all(0 < right < 2**31 for right in Right)


def test_a_process_of_ours_says_who_it_is() -> None:
    text = holder_text(99, "dataflow-tdd 4711@host pytest tests", 3.4)
    assert text == "process 4711@host pytest tests (backend 99, for 3 s)"


def test_others_are_called_by_the_name_that_they_gave() -> None:
    assert holder_text(99, "psql", 0) == "psql (backend 99, for 0 s)"
    assert holder_text(99, "", 0) == "a client without a name (backend 99, for 0 s)"


def test_holders_that_have_gone_meanwhile_are_no_empty_words() -> None:
    assert listed(("a", "b")) == "a; b"
    assert listed(()) == "somebody who has gone by now"
