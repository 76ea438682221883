"""When housekeeping is done, decided without a clock."""

from __future__ import annotations

from dataflow.testing.server.pace import IN_USE_S, PUT_OFF_S, QUIET_S, Pace


def test_it_waits_for_a_moment_without_requests() -> None:
    pace = Pace(100.0)
    assert pace.patience(100.0, quiet=False, waits=False) == QUIET_S
    assert not pace.due(100.0, quiet=False, waits=False)
    assert pace.due(100.1, quiet=True, waits=False)
    assert pace.patience(100.1, quiet=True, waits=False) == 0


def test_requests_without_end_put_it_off_only_for_so_long_and_come_in_between() -> None:
    pace = Pace(100.0)
    assert pace.due(100.0 + PUT_OFF_S, quiet=False, waits=False)
    pace.done(101.5, in_use=False)
    assert not pace.due(102.0, quiet=False, waits=False)


def test_while_runs_are_at_work_it_waits_for_long_and_then_does_all() -> None:
    pace = Pace(100.0)
    assert pace.patience(103.0, quiet=True, waits=True) == IN_USE_S - 3
    assert not pace.due(109.9, quiet=True, waits=True)
    assert pace.due(100.0 + IN_USE_S, quiet=False, waits=True)
    pace.done(110.5, in_use=True)
    assert pace.due(110.5, quiet=False, waits=True)
    assert pace.patience(110.5, quiet=False, waits=True) == 0


def test_the_time_counts_from_when_there_was_something_to_do() -> None:
    pace = Pace(100.0)
    pace.nothing_to_do(200.0)
    assert not pace.due(205.0, quiet=True, waits=True)


def test_it_goes_on_at_once_when_the_last_run_ends() -> None:
    pace = Pace(100.0)
    assert pace.due(100.5, quiet=True, waits=False)


def test_a_step_that_could_not_wait_does_not_put_off_the_others() -> None:
    pace = Pace(100.0)
    assert pace.due(105.0, quiet=True, waits=False)
    pace.done(105.5, in_use=True)
    assert not pace.due(106.0, quiet=True, waits=True)
    assert pace.due(100.0 + IN_USE_S, quiet=False, waits=True)
