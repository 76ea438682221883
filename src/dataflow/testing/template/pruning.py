"""Which templates may go, and dropping them: only those whose locks prove that nobody needs them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError
from dataflow.testing.template import databases
from dataflow.testing.template.building import discard
from dataflow.testing.template.databases import Database
from dataflow.testing.template.locks import Lock, Right, listed

if TYPE_CHECKING:
    import psycopg

KEPT = 10
KEPT_FOR_S = 86_400.0


class Pruned(NamedTuple):
    """What became of one template. :param why: it was kept, or dropped."""

    name: str
    dropped: bool
    why: str


def superfluous(found: Iterable[Database], now: float) -> tuple[str, ...]:
    """What goes after each build: all but the most recently used, and nothing that was used within a day.

    What a builder left goes if its builder is dead; templates without a note are not ours to judge.

    :param now: seconds since the epoch, by the server's clock.
    """
    ours = [(database, database.note.used) for database in found if database.note is not None]
    finished = sorted((item for item in ours if item[0].is_finished), key=lambda item: -item[1])
    old = [database.name for database, used in finished[KEPT:] if now - used >= KEPT_FOR_S]
    return (*old, *(database.name for database, _ in ours if not database.is_finished))


class Pruner:
    """Drops templates under the lock that says that nobody needs them.

    :param lock_space: the database of `connection`; templates whose users are known elsewhere are left alone.
    :param held: keys of templates that we use ourselves: our own locks would not stop us.
    """

    def __init__(
        self, connection: psycopg.Connection, admin: Dsn, lock_space: str, held: Collection[str]
    ) -> None:
        self._connection = connection
        self._admin = admin
        self._lock_space = lock_space
        self._held = held

    def prune(self, unused_for_s: float, names: Collection[str] | None) -> tuple[Pruned, ...]:
        """What became of each template; see `TemplateStore.prune`."""
        now = databases.server_time(self._connection)
        found = databases.databases(self._connection)
        known = {database.name for database in found}
        unknown = [Pruned(name, False, "there is no such template") for name in names or () if name not in known]
        chosen = [database for database in found if names is None or database.name in names]
        return (*(self._one(database, now, unused_for_s) for database in chosen), *unknown)

    def _one(self, database: Database, now: float, unused_for_s: float) -> Pruned:
        kept = self._reason_to_keep(database, now, unused_for_s)
        if kept is not None:
            return Pruned(database.name, False, kept)
        lock = Lock(Right.USE if database.is_finished else Right.BUILD, database.key)
        if not lock.attempt(self._connection):
            doing = "in use by" if database.is_finished else "being built by"
            return Pruned(database.name, False, f"{doing} {listed(lock.holders(self._connection))}")
        try:
            return self._drop(database, now)
        finally:
            with suppress(Exception):  # gone with its session, if that broke
                lock.release(self._connection)

    def _reason_to_keep(self, database: Database, now: float, unused_for_s: float) -> str | None:
        note = database.note
        if note is None:
            return "it has no note that could be read, so nobody knows its users; drop it by hand"
        if note.lock_space != self._lock_space:
            return f"its users are known in the database {note.lock_space!r} only, and we are in another one"
        if database.is_finished and database.key in self._held:
            return "in use by this process"
        if database.is_finished and now - note.used < unused_for_s:
            return f"used {duration(now - note.used)} ago"
        return None

    def _drop(self, database: Database, now: float) -> Pruned:
        try:
            if not database.is_finished:
                discard(self._connection, self._admin, database.name)
                return Pruned(database.name, True, "its builder had died")
            databases.drop(self._connection, database.name)
        except ServerError as error:
            return Pruned(database.name, False, error.what)
        used = database.note.used if database.note else now
        return Pruned(database.name, True, f"used {duration(now - used)} ago")


def duration(seconds: float) -> str:
    """For people: ``40 s``, ``5 min``, ``3 h``, ``12 d``."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
