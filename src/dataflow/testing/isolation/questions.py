"""What the server is asked when a test begins and when it ends. Pure: the questions, and reading the answers.

They go by prepared statements where the session has them, since most of their time is planning. The code under
test may throw all of those away (`DEALLOCATE ALL`), which the server then says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dataflow.testing.proof.horizon import (
    POSITION,
    SNAPSHOT,
    Horizon,
    committed_since,
    numbers,
    read_horizon,
    unless_same,
)
from dataflow.testing.sandbox.steps import DEFERRED

Rows = Sequence[tuple[str | None, ...]]

_FIRST, _LAST = "dataflow_tdd_first", "dataflow_tdd_last"
_NONE = "::"  # as no snapshot is
# Anybody may have made some constraints since the last test, if a transaction has ended since then.
_FIRST_QUERY = "SELECT " + unless_same("{0}", DEFERRED) + f", {SNAPSHOT}"
# What outlives a rollback besides: locks of the session, and what it knows of sequences.
_FORGET_SEQUENCES = "DISCARD SEQUENCES"
# The server would take planning anew for cheaper, since it cannot know that there are few transactions. It lasts
# to the end of this string.
_PLANNED_ONCE = "SET LOCAL plan_cache_mode = force_generic_plan"
_LAST_QUERY = (
    "SELECT pg_catalog.pg_advisory_unlock_all(), "
    + unless_same("{0}", committed_since("{0}"))
    + ", pg_catalog.pg_current_snapshot()"
)
_PREPARE = (
    f"PREPARE {_FIRST} (pg_catalog.text) AS {_FIRST_QUERY.format('$1')}; "
    f"PREPARE {_LAST} (pg_catalog.pg_snapshot) AS {_LAST_QUERY.format('$1')}"
)


class Begun(NamedTuple):
    """:param deferred: there are constraints INITIALLY DEFERRED."""

    horizon: Horizon
    deferred: bool


class Questions:
    """Of one session. Nothing is prepared before it serves a second test."""

    def __init__(self) -> None:
        self._prepared: bool | None = None  # None: it has not ended a test yet
        self._seen = _NONE  # the snapshot at the end of the last test, if nothing was committed while it ran
        self._deferred = False

    @property
    def first(self) -> str:
        """Behind the beginning of the transaction."""
        if self._prepared:
            return f"{POSITION}; EXECUTE {_FIRST} ('{self._seen}')"
        return f"{POSITION}; " + _FIRST_QUERY.format(f"'{self._seen}'")

    def begun(self, rows: Rows) -> Begun:
        """From the answer to `first`."""
        (position,), (deferred, snapshot, age) = rows[-2:]
        if deferred is not None:
            self._deferred = deferred == "t"
        return Begun(read_horizon(position, snapshot, age), self._deferred)

    def last(self, horizon: Horizon) -> str:
        """Behind the end of the transaction."""
        known = f"'{horizon.snapshot}'"
        prepared = f"{_FORGET_SEQUENCES}; {_PLANNED_ONCE}; EXECUTE {_LAST} ({known})"
        if self._prepared is None:
            return f"{_FORGET_SEQUENCES}; " + _LAST_QUERY.format(f"{known}::pg_catalog.pg_snapshot")
        return prepared if self._prepared else f"{_PREPARE}; {prepared}"

    def ended(self, rows: Rows) -> tuple[int, ...]:
        """From the answer to `last`: numbers of transactions committed meanwhile, on the whole server."""
        _, committed, snapshot = rows[-1]
        self._prepared = self._prepared is not None
        self._seen = _NONE if committed else str(snapshot)
        return numbers(committed)

    def lost(self) -> None:
        """The session has no prepared statements any more."""
        self._prepared = None
