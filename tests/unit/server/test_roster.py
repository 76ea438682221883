"""When a server may stop, decided without a clock."""

from __future__ import annotations

import pytest

from dataflow.testing.server.protocol import User
from dataflow.testing.server.roster import FIRST_LEASE_S, Roster

_USER = User(1, "pytest", "/", 0.0, "tdd_1")


def test_idle_time_begins_when_the_last_user_leaves() -> None:
    roster = Roster(idle_s=10, pinned=False, idle_since=0)
    roster.join("a", _USER, 10)
    roster.join("b", _USER, 10)
    roster.leave("a", 100)
    assert roster.stops_at() is None
    roster.leave("b", 200)
    assert roster.stops_at() == 210


def test_a_visitor_without_a_lease_changes_nothing() -> None:
    roster = Roster(idle_s=10, pinned=False, idle_since=100)
    assert roster.leave("a", 500) is None
    assert roster.stops_at() == 110


def test_a_pinned_server_stays() -> None:
    assert Roster(idle_s=0, pinned=True, idle_since=0).stops_at() is None


def test_the_last_comers_idle_time_counts() -> None:
    roster = Roster(idle_s=600, pinned=False, idle_since=0)
    roster.join("a", _USER, 0)
    roster.leave("a", 50)
    assert roster.stops_at() == 50


@pytest.mark.parametrize(("idle_s", "expected"), [(0, FIRST_LEASE_S), (60, 60)])
def test_a_new_server_waits_for_the_lease_that_it_was_started_for(idle_s: float, expected: float) -> None:
    assert Roster(idle_s=idle_s, pinned=False, idle_since=0).stops_at() == expected
