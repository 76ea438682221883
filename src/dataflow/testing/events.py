"""What happened, as immutable records. Lower layers emit them; reports and the doctor are folds over them.

No record refers to a live object: each can be sent to another process as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class ServerChosen(NamedTuple):
    """A server was chosen for this process. Times in ms.

    `started`: whether it had to be started for that; None: it is not ours to start.
    """

    description: str
    attempts: tuple[str, ...]
    duration_ms: float
    started: bool | None = None


class ServerRestarted(NamedTuple):
    """The embedded server had gone and was started again."""

    reason: str


class SessionsNotKept(NamedTuple):
    """Each event loop has a connection of its own, because sessions cannot go on in the next one."""

    reason: str


class ContextReleased(NamedTuple):
    """A test gave its connection back: what its isolation cost, in ms, and whether it held.

    `schema_ms` and `data_ms` are the times that the test's own statements took (DDL and all others).
    `problem`: what was wrong at the end; `harmless` when no other test can notice it. `isolated`: all that it
    did, it did in a transaction that was rolled back, so that nothing of it can have stayed.
    `opened`: its connection was opened for it. `committing`: it had a database of its own instead.
    `unproven`: why it cannot be said that nothing was committed elsewhere, if so.
    `slowest`: the statement that took longest, if they took long.
    """

    test_id: str
    setup_ms: float
    schema_ms: float
    data_ms: float
    teardown_ms: float
    statements: int
    problem: str | None = None
    harmless: bool = True
    isolated: bool = True
    opened: bool = False
    committing: bool = False
    unproven: str | None = None
    slowest: str | None = None


class RolledBack(NamedTuple):
    """A test was rolled back that has no context of ours, as those of Django.

    `unproven`: as in `ContextReleased`.
    """

    test_id: str
    unproven: str | None = None


class CommitEscapes(NamedTuple):
    """Something was committed in the database of rollback tests while a test ran.

    `changes`: what, in words, by table. `sessions`: who was there besides the test. `put_back`: what became of
    it; `stays` if nothing, and `why`. `beside`: other tests of this process that ran at the same time.
    `remedy`: what to do about it, in words.
    """

    test_id: str
    changes: tuple[str, ...]
    sessions: tuple[str, ...]
    put_back: str
    stays: bool
    why: str | None = None
    beside: tuple[str, ...] = ()
    remedy: str = ""

    def __str__(self) -> str:
        """In lines, for people."""
        beside = f", or one of those that ran beside it: {', '.join(self.beside)}" if self.beside else ""
        why = f" ({self.why})" if self.why else ""
        what = f"{self.test_id}{beside}: something was committed in its database while it ran"
        seen = (f"- seen there: {session}" for session in self.sessions)
        return "\n".join([f"{what}; {self.put_back}{why}", *(f"- {each}" for each in self.changes), *seen])


class ConnectionLeaked(NamedTuple):
    """A test kept a connection."""

    test_id: str
    holder: str
    held_s: float
    last_statement: str | None


class TemplateUsed(NamedTuple):
    """The tables and rows with which databases begin. :param built_ms: None when they were there already."""

    description: str
    name: str
    built_ms: float | None


class SchemaLeftOut(NamedTuple):
    """Rollback tests have what is in `database`, because no copy of a template may be made there."""

    description: str
    database: str
    reason: str


class DatabaseMethod(NamedTuple):
    """How databases are made ready for the next test, and why not faster."""

    description: str


class DatabaseReturned(NamedTuple):
    """A test gave its database back. Times in ms.

    `lent_ms`: until it had it. `ended_ms`: until the last session was gone; `reset_ms`: what making it as it was
    took. `replaced`: why it had to be replaced by a fresh copy, or None. `fresh`: it asked for a fresh one.
    `leaked`: sessions that it left behind, in words. `outside`: what it changed outside of its database.
    `explanation`: what was read in the log and what was done, in lines; empty unless asked for.
    """

    test_id: str
    lent_ms: float
    ended_ms: float
    reset_ms: float
    replaced: str | None
    fresh: bool
    leaked: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    explanation: tuple[str, ...] = ()

    @property
    def teardown_ms(self) -> float:
        return self.ended_ms + self.reset_ms


_Database = TemplateUsed | SchemaLeftOut | DatabaseMethod | DatabaseReturned
_Test = ContextReleased | RolledBack | CommitEscapes | ConnectionLeaked
Event = ServerChosen | ServerRestarted | SessionsNotKept | _Test | _Database
Emit = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The listener of those who do not care."""
