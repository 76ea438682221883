"""The words of the report. Pure: a summary in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dataflow.testing.events import ConnectionLeaked
from dataflow.testing.report.model import TEAR_DOWN, DatabaseSummary, Phase, SlowTest, Summary

ADVICE = {
    "set-up": "fixture set-up is slow: the machine is busy, or all connections were in use",
    "schema": "schema work is slow: create tables once in a session fixture, or use schema templates",
    "data": "data operations are slow: look at the queries (EXPLAIN), and create only the rows it needs",
}
STARTED = {None: "", True: ", started", False: ", was running"}
OPENED = (
    "fixture set-up is slow: a connection was opened for it, as for the first test of each event loop, and "
    "behind one whose connection was closed or whose database was replaced"
)
NO_PHASE = "no phase is over its target by itself, their sum is over the limit"
AT_THE_END = "tear-down is slow: the machine is busy, or what others committed had to be looked for and undone"


def lines(summary: Summary) -> Iterator[str]:
    """The section at the end of a run."""
    for server in summary.servers:
        yield f"server     {server.description}{STARTED[server.started]}; ready in {server.duration_ms:.0f} ms"
        for attempt in server.attempts:
            yield f"           not used: {attempt}"
    for number, line in enumerate(summary.settings):
        yield f"{'settings' if number == 0 else '':<11}{line}"
    for reason in summary.not_kept:
        yield f"loops      each event loop had a connection of its own: {reason}"
    yield from _template(summary)
    yield from _table(summary)
    yield from _isolation(summary)
    if summary.databases is not None:
        yield from _databases(summary.databases)
    yield from _slow(summary)
    if summary.leaks:
        yield f"leaks      {len(summary.leaks)}:"
        yield from (f"           {line}" for line in leak_text(summary.leaks).splitlines()[1:])
    for restart in summary.restarts:
        yield f"restarted  {restart.reason}"
    for worker in summary.lost_workers:
        yield f"lost       worker {worker} crashed; its tests are missing in these figures"


def leak_text(leaks: Sequence[ConnectionLeaked]) -> str:
    """Who holds what since when."""
    count = f"{len(leaks)} connection" + ("s" if len(leaks) != 1 else "")
    return "\n".join([f"{count} not given back by {leaks[0].test_id}:", *map(_leak_line, leaks)])


def _leak_line(leak: ConnectionLeaked) -> str:
    statement = f"last statement: {leak.last_statement}" if leak.last_statement else "no statement yet"
    return f"- {leak.holder}, held for {leak.held_s:.1f} s, {statement}"


def _table(summary: Summary) -> Iterator[str]:
    if not summary.phases:
        return
    yield f"tests      {summary.tests:<10} {'median':>10}  {'p95':>10}  {'target':>8}"
    yield from (_row(phase) for phase in summary.phases)


def _row(phase: Phase) -> str:
    target = "" if phase.target_ms is None else f"{phase.target_ms:>5.0f} ms  " + _verdict(phase)
    return f"  {phase.name:<19} {phase.median_ms:>7.2f} ms  {phase.p95_ms:>7.2f} ms  {target}".rstrip()


def _verdict(phase: Phase) -> str:
    return "ok" if phase.within_target else "over"


def _isolation(summary: Summary) -> Iterator[str]:
    if not summary.tests and not summary.isolated:
        return
    count = f"{summary.proven} of {summary.isolated} tests"
    yield f"isolation  proven for {count}: rolled back, and nothing was committed meanwhile"
    for reason, times in summary.unproven:
        yield f"           not proven for {times}: {reason}"
    if summary.outside:
        yield f"           {summary.outside} used a connection outside of it: what they committed stays"
    for escape in summary.escapes:
        yield from (f"           {line}" for line in str(escape).splitlines())
    for problem in summary.problems:
        yield f"           {problem}"


def _template(summary: Summary) -> Iterator[str]:
    for template in summary.templates:
        how = "was there already" if template.built_ms is None else f"made in {template.built_ms:.0f} ms"
        yield f"schema     {template.description}; {how}"
    for schema in summary.left_out:
        yield f"schema     {schema.description}; not made: {schema.reason}"
        yield f"           tests whose work is rolled back have what is in {schema.database}"


def _databases(databases: DatabaseSummary) -> Iterator[str]:
    count = f"{databases.tests} test{'s' if databases.tests != 1 else ''} with a database"
    yield f"databases  {count:<19} {'median':>3}  {'p95':>10}"
    yield from (_row(phase) for phase in databases.phases)
    for method in databases.methods:
        yield f"           {method}"
    if databases.fresh:
        yield f"           {databases.fresh} asked for a fresh copy"
    for reason, times in databases.replaced:
        if reason in databases.methods:  # said above
            continue
        yield f"           {times} replaced by a fresh copy: {reason}"
    for change in databases.outside:
        yield f"           stays, since it is outside of the database: {change}"
    for leak in databases.leaks:
        yield f"           left behind by {leak}"


def _slow(summary: Summary) -> Iterator[str]:
    if not summary.slow:
        return
    yield "slow       tests over a target, the slowest first:"
    for test in summary.slow:
        phases = ", ".join(f"{name} {ms:.1f}" for name, ms in test.phases_ms.items())
        yield f"           {test.test_id}: {test.total_ms:.1f} ms ({phases})"
        for advice in _advice(test):
            yield f"             {advice}"
        if test.slowest is not None and {"data", "schema"} & set(test.over):
            yield f"             slowest statement, {test.slowest}"
    if summary.slow_not_shown:
        yield f"           and {summary.slow_not_shown} more"


def _advice(test: SlowTest) -> list[str]:
    advice = ADVICE | {"set-up": OPENED} if test.opened else ADVICE
    found = [advice[phase] for phase in test.over]
    if not found and test.phases_ms.get(TEAR_DOWN, 0.0) > test.total_ms / 2:
        return [AT_THE_END]
    return found or [NO_PHASE]
