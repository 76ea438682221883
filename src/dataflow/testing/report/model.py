"""The report as a value: events in, figures out. Pure, but for the list that grows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from dataflow.testing import events as kinds
from dataflow.testing.events import (
    CommitEscapes,
    ConnectionLeaked,
    ContextReleased,
    DatabaseMethod,
    DatabaseReturned,
    Event,
    RolledBack,
    SchemaLeftOut,
    ServerChosen,
    ServerRestarted,
    SessionsNotKept,
    TemplateUsed,
)

_Event = TypeVar("_Event", bound=Event)

# The guide's targets, in ms per test.
TARGETS_MS = {"set-up": 20.0, "schema": 20.0, "data": 30.0}
TOTAL = "total"
TEAR_DOWN = "tear-down"
TOTAL_TARGET_MS = 100.0
SLOWEST_SHOWN = 10


class Phase(NamedTuple):
    """One line of the table; times in ms per test."""

    name: str
    median_ms: float
    p95_ms: float
    target_ms: float | None

    @property
    def within_target(self) -> bool:
        return self.target_ms is None or self.p95_ms <= self.target_ms


class SlowTest(NamedTuple):
    """A test over a target, and the phases that are. :param slowest: statement of it."""

    test_id: str
    total_ms: float
    phases_ms: dict[str, float]
    over: tuple[str, ...]
    opened: bool = False
    slowest: str | None = None


class DatabaseSummary(NamedTuple):
    """Tests with a database of their own.

    :param methods: how databases are made ready. :param replaced: reasons, with how often each.
    :param outside: what tests changed outside of their databases. :param leaks: sessions left behind.
    """

    tests: int
    methods: tuple[str, ...]
    phases: tuple[Phase, ...]
    fresh: int
    replaced: tuple[tuple[str, int], ...]
    outside: tuple[str, ...]
    leaks: tuple[str, ...]


class Summary(NamedTuple):
    """All that the end of a run has to say.

    :param isolated: tests whose work was rolled back; of so many it is `proven` that nothing was committed
        meanwhile, and of others not, with the reasons and how often each.
    """

    servers: tuple[ServerChosen, ...]
    settings: tuple[str, ...]
    tests: int
    phases: tuple[Phase, ...]
    isolated: int
    proven: int
    unproven: tuple[tuple[str, int], ...]
    escapes: tuple[CommitEscapes, ...]
    outside: int
    problems: tuple[str, ...]
    slow: tuple[SlowTest, ...]
    slow_not_shown: int
    leaks: tuple[ConnectionLeaked, ...]
    restarts: tuple[ServerRestarted, ...]
    lost_workers: tuple[str, ...]
    templates: tuple[TemplateUsed, ...] = ()
    left_out: tuple[SchemaLeftOut, ...] = ()
    databases: DatabaseSummary | None = None
    not_kept: tuple[str, ...] = ()


class Report:
    """Collects the events of a run, of this process and of its workers.

    :ivar slow_ms: a test is named as slow from this total on, and its phases in proportion; 0: none is.
    :ivar settings: the settings worth showing, a line each.
    """

    def __init__(self, slow_ms: float = TOTAL_TARGET_MS, settings: tuple[str, ...] = ()) -> None:
        self.slow_ms = slow_ms
        self.settings = settings
        self._events: list[Event] = []
        self._lost_workers: list[str] = []

    @property
    def used(self) -> bool:
        return bool(self._events or self._lost_workers)

    def add(self, event: Event) -> None:
        self._events.append(event)

    def lost_worker(self, name: str) -> None:
        self._lost_workers.append(name)

    def to_plain(self) -> list[dict[str, Any]]:
        """The events as plain data, to be sent to another process."""
        plain = [{"kind": type(event).__name__, **_listed(event._asdict())} for event in self._events]
        return [*plain, {"kind": "settings", "lines": list(self.settings), "slow_ms": self.slow_ms}]

    def add_plain(self, sent: Iterable[dict[str, Any]]) -> None:
        """What `to_plain` gave in another process."""
        for record in sent:
            values = dict(record)
            kind = values.pop("kind")
            if kind == "settings":
                self.settings = self.settings or tuple(values["lines"])
                self.slow_ms = values["slow_ms"]
                continue
            self.add(getattr(kinds, kind)(**{k: _tupled(v) for k, v in values.items()}))

    def summary(self) -> Summary:
        released = self._of(ContextReleased)
        rolled_back = [event for event in released if not event.committing]
        reasons = [(event.test_id, event.unproven) for event in rolled_back]
        reasons += [(event.test_id, event.unproven) for event in self._of(RolledBack)]
        unproven = [(test_id, reason) for test_id, reason in reasons if reason is not None]
        escapes = tuple(self._of(CommitEscapes))
        outside = {event.test_id for event in rolled_back if not event.isolated}
        isolated = {test_id for test_id, _ in reasons} - outside
        doubtful = {test_id for test_id, _ in unproven} | {event.test_id for event in escapes}
        doubtful |= {event.test_id for event in rolled_back if event.problem is not None}
        slow = _slow_tests(released, self.slow_ms)
        return Summary(
            servers=_distinct(self._of(ServerChosen)),
            settings=self.settings,
            tests=len({event.test_id for event in released}),
            phases=_phases(released),
            isolated=len(isolated),
            proven=len(isolated - doubtful),
            unproven=tuple(Counter(reason for _, reason in unproven).most_common()),
            escapes=escapes,
            outside=len(outside),
            problems=tuple(event.problem for event in released if event.problem is not None),
            slow=tuple(slow[:SLOWEST_SHOWN]),
            slow_not_shown=max(0, len(slow) - SLOWEST_SHOWN),
            leaks=tuple(self._of(ConnectionLeaked)),
            restarts=tuple(self._of(ServerRestarted)),
            lost_workers=tuple(self._lost_workers),
            templates=tuple(dict.fromkeys(self._of(TemplateUsed))),
            left_out=tuple(dict.fromkeys(self._of(SchemaLeftOut))),
            not_kept=tuple(dict.fromkeys(event.reason for event in self._of(SessionsNotKept))),
            databases=_databases(self._of(DatabaseReturned), self._of(DatabaseMethod)),
        )

    def _of(self, kind: type[_Event]) -> list[_Event]:
        return [event for event in self._events if isinstance(event, kind)]


def quantile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def times_ms(test: ContextReleased) -> dict[str, float]:
    return {
        "set-up": test.setup_ms,
        "schema": test.schema_ms,
        "data": test.data_ms,
        TEAR_DOWN: test.teardown_ms,
    }


def _phases(measured: Sequence[ContextReleased]) -> tuple[Phase, ...]:
    if not measured:
        return ()
    columns = [times_ms(test) for test in measured]
    phases = [_phase(name, [column[name] for column in columns], TARGETS_MS.get(name)) for name in columns[0]]
    totals = [sum(column.values()) for column in columns]
    return (*phases, _phase(TOTAL, totals, TOTAL_TARGET_MS))


def _phase(name: str, values: Sequence[float], target_ms: float | None) -> Phase:
    return Phase(name, quantile(values, 0.5), quantile(values, 0.95), target_ms)


def _databases(returned: Sequence[DatabaseReturned], methods: Sequence[DatabaseMethod]) -> DatabaseSummary | None:
    if not returned:
        return None
    phases = (
        _phase("set-up", [event.lent_ms for event in returned], None),
        _phase("put back", [event.teardown_ms for event in returned], None),
    )
    replaced = Counter(event.replaced for event in returned if event.replaced is not None and not event.fresh)
    return DatabaseSummary(
        tests=len({event.test_id for event in returned}),
        methods=tuple(dict.fromkeys(event.description for event in methods)),
        phases=phases,
        fresh=sum(event.fresh for event in returned),
        replaced=tuple(replaced.most_common()),
        outside=tuple(f"{event.test_id}: {change}" for event in returned for change in event.outside),
        leaks=tuple(f"{event.test_id}: {leak}" for event in returned for leak in event.leaked),
    )


def _slow_tests(measured: Sequence[ContextReleased], slow_ms: float) -> list[SlowTest]:
    """Tests over their total, or over the target of a phase; the slowest first.

    The targets of the phases move in proportion with the limit of the total.
    """
    slow = []
    share = slow_ms / TOTAL_TARGET_MS
    for test in measured:
        phases = times_ms(test)
        total = sum(phases.values())
        over = tuple(name for name, target in TARGETS_MS.items() if phases[name] > target * share)
        if slow_ms and (over or total > slow_ms):
            slow.append(SlowTest(test.test_id, total, phases, over, test.opened, test.slowest))
    return sorted(slow, key=lambda test: test.total_ms, reverse=True)


def _distinct(servers: Sequence[ServerChosen]) -> tuple[ServerChosen, ...]:
    """Each server once; of several workers, the one that had to start it."""
    ordered = sorted(servers, key=lambda server: server.started is not True)
    return tuple({server.description: server for server in reversed(ordered)}.values())[::-1]


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
