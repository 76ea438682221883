"""What a test's statements did, as far as can be told from outside: times, savepoints, leftovers. No I/O."""

from __future__ import annotations

from time import perf_counter

from dataflow.testing.isolation.sql import Script, script
from dataflow.testing.masking import mask

SHOWN_LENGTH = 200


class StatementLog:
    """Sums over the statements of one test, and the last of them.

    :param guard: the savepoint at which the test began.
    :ivar outside: a statement ran in no test transaction, so what it did to the session was not undone.

    Times are wall-clock seconds seen by the client. `schema_s` counts statements that are neither queries nor
    changes of rows, `data_s` all others.
    """

    __slots__ = (
        "_guard",
        "count",
        "data_s",
        "failed",
        "last",
        "outside",
        "savepoints",
        "schema_changed",
        "schema_s",
        "session_changed",
    )

    def __init__(self, guard: str = "") -> None:
        self._guard = guard
        self.outside = False
        self.failed: str | None = None  # the last statement that failed
        self.count = 0
        self.schema_s = 0.0
        self.data_s = 0.0
        self.last: str | None = None
        self.schema_changed = False
        self.session_changed = False
        self.savepoints: list[str] = []

    def started(self, sql: str) -> Script:
        self.count += 1
        self.last = sql
        return script(sql)

    def finished(self, read: Script, started: float, *, failed: bool) -> None:
        elapsed = perf_counter() - started
        if read.changes_schema:
            self.schema_s += elapsed
            self.schema_changed = True
            self.session_changed = self.session_changed or read.leaves_session_state
        else:
            self.data_s += elapsed
        if read.controls_transaction and not failed:
            if read.rolls_back:
                self.savepoints.clear()
            for change, name in read.savepoint_changes:
                self._follow(change, name)

    def followed(self, sql: str) -> None:
        """Statements about savepoints that were sent around the connection."""
        for change, name in script(sql).savepoint_changes:
            self._follow(change, name)

    def _follow(self, change: str, name: str) -> None:
        """Keep the list of open savepoints; PostgreSQL has no view of them."""
        if change == "set":
            self.savepoints.append(name)
        elif name == self._guard:
            self.savepoints.clear()
        elif name in self.savepoints:
            last = len(self.savepoints) - 1 - self.savepoints[::-1].index(name)
            del self.savepoints[last + (change == "rollback") :]

    @property
    def last_shown(self) -> str | None:
        """The last statement on one line, shortened, without passwords."""
        return None if self.last is None else shown(self.last)


def shown(sql: str) -> str:
    text = mask(" ".join(sql.split()))
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 3] + "..."
