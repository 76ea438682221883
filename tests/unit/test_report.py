"""The report: a fold of events, and its words."""

from __future__ import annotations

import json

from dataflow.testing.events import (
    CommitEscapes,
    ConnectionLeaked,
    ContextReleased,
    ServerChosen,
    ServerRestarted,
    SessionsNotKept,
)
from dataflow.testing.report.model import SLOWEST_SHOWN, Report, quantile
from dataflow.testing.report.terminal import leak_text, lines


def released(
    test_id: str = "t", setup: float = 1, schema: float = 2, data: float = 3, teardown: float = 4, **more
):
    return ContextReleased(test_id, setup, schema, data, teardown, statements=5, **more)


def report(*events, **more) -> Report:
    made = Report(**more)
    for event in events:
        made.add(event)
    return made


def words(*events, **more) -> str:
    return "\n".join(lines(report(*events, **more).summary()))


def test_quantiles_are_values_that_occurred() -> None:
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([1, 2, 3, 4], 0.5) == 2
    assert quantile(range(1, 101), 0.95) == 95
    assert quantile([7], 0.95) == 7


def test_phases_with_medians_p95_and_totals_per_test() -> None:
    events = [released(f"t{n}", setup=n, schema=0, data=2 * n, teardown=1) for n in range(1, 101)]
    phases = {phase.name: phase for phase in report(*events).summary().phases}
    assert list(phases) == ["set-up", "schema", "data", "tear-down", "total"]
    assert (phases["set-up"].median_ms, phases["set-up"].p95_ms, phases["set-up"].target_ms) == (50, 95, 20)
    assert (phases["total"].median_ms, phases["total"].p95_ms, phases["total"].target_ms) == (151, 286, 100)
    assert phases["tear-down"].target_ms is None
    assert phases["tear-down"].within_target
    assert not phases["data"].within_target
    assert phases["schema"].within_target


def test_a_value_at_the_target_is_within_it() -> None:
    text = words(released(setup=20.0))
    assert "set-up                20.00 ms    20.00 ms     20 ms  ok" in text
    assert "20 ms  over" in words(released(setup=20.01))


def test_tests_are_counted_once_however_many_contexts_they_have() -> None:
    summary = report(released("a"), released("a"), released("b")).summary()
    assert (summary.tests, summary.isolated, summary.proven, summary.outside) == (2, 2, 2, 0)


def test_only_what_is_proven_is_called_so() -> None:
    escape = CommitEscapes("e", ("t: 1 row added",), ("backend 7",), "it stays", True, "no copy", beside=("f",))
    text = words(
        released("a"),
        released("b", problem="b: left it", harmless=False),
        released("c", isolated=False),
        released("d1", unproven="the log cannot be read"),
        released("d2", unproven="the log cannot be read"),
        released("e"),
        escape,
    )
    assert "isolation  proven for 1 of 5 tests: rolled back, and nothing was committed meanwhile" in text
    assert "1 used a connection outside of it: what they committed stays" in text
    assert "           not proven for 2: the log cannot be read" in text
    assert "           b: left it" in text
    assert "e, or one of those that ran beside it: f: something was committed" in text
    assert "while it ran; it stays (no copy)" in text
    assert "           - t: 1 row added\n           - seen there: backend 7" in text


def test_a_connection_for_each_loop_is_said_once_with_its_reason() -> None:
    reason = SessionsNotKept("the server is entered through TLS")
    text = words(released("a"), reason, reason)
    assert (
        text.count("loops      each event loop had a connection of its own: the server is entered through TLS")
        == 1
    )


def test_slow_tests_come_slowest_first_with_advice_for_each_phase_over_its_target() -> None:
    text = words(
        released("setup is slow", setup=21),
        released("the first one", setup=20.5, opened=True),
        released("schema and data are slow", schema=22, data=40),
        released("only the sum", setup=19, schema=19, data=29, teardown=50),
        released("quick"),
    )
    _, _, slow = text.partition("slow       tests over a target, the slowest first:\n")
    names = [line.strip().partition(":")[0] for line in slow.splitlines() if not line.startswith(" " * 13)]
    assert names == ["only the sum", "schema and data are slow", "setup is slow", "the first one"]
    assert "only the sum: 117.0 ms (set-up 19.0, schema 19.0, data 29.0, tear-down 50.0)" in slow
    assert "no phase is over its target by itself, their sum is over the limit" in slow
    late = words(released("late", setup=1, schema=1, data=1, teardown=300))
    assert (
        "tear-down is slow: the machine is busy, or what others committed had to be looked for and undone" in late
    )
    assert slow.count("fixture set-up is slow: the machine is busy") == 1
    assert slow.count("fixture set-up is slow: a connection was opened for it") == 1
    assert slow.count("schema work is slow: create tables once") == 1
    assert slow.count("data operations are slow: look at the queries") == 1


def test_the_slow_limit_is_the_setting_and_zero_switches_it_off() -> None:
    event = released(teardown=50)
    assert "the slowest first" in words(event, slow_ms=50)
    assert "the slowest first" not in words(event, slow_ms=100)
    assert "the slowest first" not in words(released(setup=500), slow_ms=0)


def test_the_targets_of_the_phases_move_with_the_slow_limit() -> None:
    assert "the slowest first" in words(released(setup=30), slow_ms=100)
    assert "the slowest first" not in words(released(setup=30), slow_ms=200)
    assert "fixture set-up is slow" in words(released(setup=11), slow_ms=50)


def test_only_the_slowest_are_listed_and_the_others_counted() -> None:
    text = words(*(released(f"t{n}", setup=30 + n) for n in range(SLOWEST_SHOWN + 3)))
    assert text.count("fixture set-up is slow") == SLOWEST_SHOWN
    assert "           and 3 more" in text


def test_servers_settings_restarts_and_lost_workers() -> None:
    made = report(
        ServerChosen("embedded PostgreSQL 18", ("localhost:5433: refused",), 12.4),
        ServerChosen("embedded PostgreSQL 18", ("localhost:5433: refused",), 99.0),
        ServerRestarted("it was killed"),
        settings=("CI profile: pool_size 3, timeout 15.0", "--tdd-slow: slow 5.0"),
    )
    made.lost_worker("gw1")
    assert list(lines(made.summary())) == [
        "server     embedded PostgreSQL 18; ready in 12 ms",
        "           not used: localhost:5433: refused",
        "settings   CI profile: pool_size 3, timeout 15.0",
        "           --tdd-slow: slow 5.0",
        "restarted  it was killed",
        "lost       worker gw1 crashed; its tests are missing in these figures",
    ]


def test_leaks_name_holder_age_and_last_statement() -> None:
    one = ConnectionLeaked("test_a", "pool of test_a", 1.25, "SELECT 1")
    two = ConnectionLeaked("test_a", "another", 0.0, None)
    assert leak_text([one]) == (
        "1 connection not given back by test_a:\n- pool of test_a, held for 1.2 s, last statement: SELECT 1"
    )
    assert leak_text([one, two]).startswith("2 connections not given back by test_a:\n")
    assert leak_text([one, two]).endswith("- another, held for 0.0 s, no statement yet")
    assert "leaks      2:" in words(one, two)


def test_nothing_happened_nothing_said() -> None:
    assert not report().used
    assert words() == ""


def test_workers_reports_travel_as_plain_data_and_add_up() -> None:
    worker = report(
        ServerChosen("s", ("a",), 1.0),
        released("w", problem="p"),
        ConnectionLeaked("w", "h", 1.0, None),
        ServerRestarted("r"),
        settings=("pool_size 3 (CI profile)",),
        slow_ms=7,
    )
    sent = json.loads(json.dumps(worker.to_plain()))
    controller = Report()
    controller.add_plain(sent)
    assert controller.summary() == worker.summary()
    controller.add_plain(json.loads(json.dumps(report(released("x"), slow_ms=7).to_plain())))
    assert controller.summary().tests == 2
    assert controller.slow_ms == 7
