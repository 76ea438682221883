"""What the server is asked when a test begins and when it ends. Pure: the questions, and reading the answers.

They go by prepared statements where the session has them, since most of their time is planning. The code under
test may throw all of those away (`DEALLOCATE ALL`), which the server then says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dataflow.testing.proof.horizon import POSITION, PREPARE, SNAPSHOT, Horizon, numbers, read_horizon
from dataflow.testing.sandbox.steps import DEFERRED

Rows = Sequence[tuple[str | None, ...]]

# Anybody may have made some constraints since the last test.
_FIRST = f"{DEFERRED}, {SNAPSHOT}"
_NAME = "dataflow_tdd_first"
_PREPARE_FIRST = f"PREPARE {_NAME} AS {_FIRST}"


class Begun(NamedTuple):
    """:param deferred: there are constraints INITIALLY DEFERRED."""

    horizon: Horizon
    deferred: bool


class Questions:
    """Of one session. Nothing is prepared before it serves a second test: one that goes from event loop to event
    loop loses its statements each time."""

    def __init__(self) -> None:
        self._prepared: bool | None = None  # None: it has not ended a test yet

    @property
    def first(self) -> str:
        """Behind the beginning of the transaction."""
        return f"{POSITION}; " + (f"EXECUTE {_NAME}" if self._prepared else _FIRST)

    def begun(self, rows: Rows) -> Begun:
        """From the answer to `first`."""
        (position,), (deferred, snapshot, age) = rows[-2:]
        return Begun(read_horizon(position, snapshot, age), deferred == "t")

    def last(self, horizon: Horizon) -> str:
        """Behind the end of the transaction."""
        if self._prepared:
            return horizon.prepared_question
        if self._prepared is None:
            return horizon.question
        return f"{PREPARE}; {_PREPARE_FIRST}; {horizon.prepared_question}"

    def ended(self, rows: Rows) -> tuple[int, ...]:
        """From the answer to `last`: numbers of transactions committed meanwhile, on the whole server."""
        self._prepared = self._prepared is not None
        return numbers(rows[-1][0])

    def lost(self) -> None:
        """The session has no prepared statements any more."""
        self._prepared = None
