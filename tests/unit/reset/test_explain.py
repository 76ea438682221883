"""A reset in words."""

from __future__ import annotations

from collections import Counter

from tests.unit.reset.test_plan import SMALL

from dataflow.testing.reset.explain import explain
from dataflow.testing.reset.footprint import Touched
from dataflow.testing.reset.log import Inside, Written, position_bytes
from dataflow.testing.reset.outcome import ClusterChange, Outcome
from dataflow.testing.reset.plan import DeleteRows, Plan, RestoreTable, SetSequence
from dataflow.testing.reset.shape import SequenceState


def test_it_says_what_was_read_what_it_means_and_what_was_done() -> None:
    touched = Touched(came={(0, 1), (0, 2)}, gone={(1, 1)}, kinds=Counter({"Heap/INSERT": 2, "Heap/DELETE": 1}))
    steps = DeleteRows(SMALL, ((0, 1), (0, 2))), SetSequence(7, SequenceState("public.s", 5, True))
    outcome = Outcome(
        Plan(steps),
        Written("0/100", "0/180", [], Inside(1, False, 700)),
        ((SMALL, touched), (None, Touched(kinds=Counter({"XLOG/FPI": 1})))),
        1.234,
        ClusterChange(others=("role x",)),
    )
    assert list(explain(outcome, "tdd_lease_1")) == [
        "database   tdd_lease_1",
        "log        0/100 to 0/180, 128 bytes",
        "           public.small: Heap/DELETE 1, Heap/INSERT 2; 2 rows came, 1 may have gone",
        "           a file that the template does not have: XLOG/FPI 1; 0 rows came, 0 may have gone",
        "plan       delete the rows at 2 places of public.small",
        "plan       set public.s back to 5",
        "time       1.23 ms",
        "outside    role x was made or changed, and stays",
    ]


def test_plans_without_steps() -> None:
    assert str(Plan()) == "nothing to do"
    assert str(Plan(replace="a catalog was rewritten")) == "take a fresh copy: a catalog was rewritten"
    assert str(Plan((RestoreTable(SMALL, "why"),))) == "put all rows of public.small back (8 kB): why"


def test_positions_of_the_log_are_numbers_of_bytes() -> None:
    assert position_bytes("0/1BF6BF8") == 0x1BF6BF8
    assert position_bytes("A/10") == (10 << 32) + 16
