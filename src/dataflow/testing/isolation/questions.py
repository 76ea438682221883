"""What the server is asked when a test begins and when it ends. Pure: the questions, and reading the answers.

As long as nobody else is at work and the test sends nothing, two short questions are enough. More is asked
together with them where the test has sent something or others were at work the last time, and behind them where
the answers say that they are now. It goes by prepared statements where the session has them, since most of its
time is planning. The code under test may throw all of those away (`DEALLOCATE ALL`), which the server then says.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple, TypeVar

from dataflow.testing.proof.horizon import HORIZON, Horizon, committed_since, numbers, read_horizon
from dataflow.testing.sandbox.steps import DEFERRED

T = TypeVar("T")

Rows = Sequence[tuple[str | None, ...]]
# Gives questions, takes the answers, or `PreparedGone`.
Asking = Generator[str, Rows, T]

_HORIZON, _DEFERRED = "dataflow_tdd_horizon", "dataflow_tdd_deferred"
_SNAPSHOT, _COMMITTED = "dataflow_tdd_snapshot", "dataflow_tdd_committed"
# What outlives a rollback besides: locks of the session, and what it knows of sequences.
_CLEAN = "DISCARD SEQUENCES; "
_LAST_QUERY = "SELECT pg_catalog.pg_advisory_unlock_all(), {0}, pg_catalog.pg_current_snapshot()"
_UNASKED = _LAST_QUERY.format("NULL")
# The server would take planning anew for cheaper, since it cannot know that there are few transactions. It lasts
# to the end of this string.
_PLANNED_ONCE = "SET LOCAL plan_cache_mode = force_generic_plan"
_PREPARE = (
    f"PREPARE {_HORIZON} AS {HORIZON}; "
    f"PREPARE {_DEFERRED} AS {DEFERRED}; "
    f"PREPARE {_SNAPSHOT} AS {_UNASKED}; "
    f"PREPARE {_COMMITTED} (pg_catalog.pg_snapshot) AS {_LAST_QUERY.format(committed_since('$1'))}; "
)


class PreparedGone(Exception):
    """The session has no prepared statements any more."""


class Begun(NamedTuple):
    """:param deferred: there are constraints INITIALLY DEFERRED."""

    horizon: Horizon
    deferred: bool


class Questions:
    """Of one session. Nothing is prepared before it serves a second test."""

    def __init__(self) -> None:
        self._tests = 0  # that it has ended since it knew nothing
        self._seen = ""  # the snapshot at the end of the last test, if nothing was committed while it ran
        self._deferred = False
        self._beside = False  # somebody's transaction ended between the last two tests
        self._within = False  # somebody's, or one of the test itself, ended while the last test ran

    def begin(self, sql: str) -> Asking[Begun]:
        """:param sql: begins the transaction."""
        try:
            return (yield from self._begin(sql))
        except PreparedGone:
            self.lost()
            yield "ROLLBACK"
            return (yield from self._begin(sql))

    def end(self, sql: str, horizon: Horizon, *, used: bool) -> Asking[tuple[int, ...]]:
        """Numbers of transactions committed meanwhile, on the whole server.

        :param sql: ends the transaction. :param used: the test has sent something.
        """
        try:
            return (yield from self._end(f"{sql}; ", horizon, together=used or self._within))
        except PreparedGone:
            self.lost()
            return (yield from self._end("", horizon, together=True))

    def _begin(self, sql: str) -> Asking[Begun]:
        together = self._beside
        rows = yield f"{sql}; {self._horizon}" + (f"; {self._any_deferred}" if together else "")
        horizon = read_horizon(*rows[-2 if together else -1])
        self._beside = horizon.snapshot != self._seen
        if self._beside:  # anybody may have made some
            if not together:
                rows = yield self._any_deferred
            self._deferred = rows[-1] == ("t",)
        return Begun(horizon, self._deferred)

    def _end(self, sql: str, horizon: Horizon, *, together: bool) -> Asking[tuple[int, ...]]:
        prepare = _PREPARE if self._tests == 1 else ""
        self._tests += 1
        rows = yield f"{sql}{_CLEAN}{prepare}" + (self._committed(horizon) if together else self._snapshot)
        ended = rows[-1][2] != horizon.snapshot
        if ended and not together:
            rows = yield self._committed(horizon)
        self._within = ended
        _, committed, snapshot = rows[-1]
        self._seen = "" if committed else str(snapshot)
        return numbers(committed)

    def lost(self) -> None:
        """The session has no prepared statements any more."""
        self._tests = 0

    @property
    def _prepared(self) -> bool:
        return self._tests > 1

    @property
    def _horizon(self) -> str:
        return f"EXECUTE {_HORIZON}" if self._prepared else HORIZON

    @property
    def _any_deferred(self) -> str:
        return f"EXECUTE {_DEFERRED}" if self._prepared else DEFERRED

    @property
    def _snapshot(self) -> str:
        return f"EXECUTE {_SNAPSHOT}" if self._prepared else _UNASKED

    def _committed(self, horizon: Horizon) -> str:
        known = f"'{horizon.snapshot}'"
        if self._prepared:
            return f"{_PLANNED_ONCE}; EXECUTE {_COMMITTED} ({known})"
        return _LAST_QUERY.format(committed_since(f"{known}::pg_catalog.pg_snapshot"))
