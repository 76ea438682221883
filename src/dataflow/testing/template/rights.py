"""The right to use templates: shared locks, held by a session for as long as a process may copy them."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from dataflow.testing.errors import TemplateBusy
from dataflow.testing.template import databases, naming
from dataflow.testing.template.databases import Database
from dataflow.testing.template.locks import Lock, Right, listed

if TYPE_CHECKING:
    import psycopg

# A use is noted once in so many seconds: noting it waits for copies that are being made, and they for it.
_NOTE_EVERY_S = 60.0


class Rights:
    """The keys of templates that nobody else may drop now. The session is the store's, and may change.

    :ivar held: these keys.
    """

    def __init__(self) -> None:
        self._held: set[str] = set()

    @property
    def held(self) -> frozenset[str]:
        return frozenset(self._held)

    def take(self, connection: psycopg.Connection, key: str, limit_s: float) -> bool:
        """Whether the template is there, as it was built, and ours to use from now on.

        :raises TemplateBusy: somebody has been dropping it for `limit_s` seconds.
        """
        self.lock(connection, key, limit_s)
        # Only now: before we had the lock it could have been dropped.
        database = find(connection, key)
        if database is not None and database.is_sealed:
            _note_use(connection, database)
            return True
        self.give_up(connection, key)
        return False

    def lock(self, connection: psycopg.Connection, key: str, limit_s: float) -> None:
        """
        :raises TemplateBusy: see `take`.
        """
        use = Lock(Right.USE, key)
        if key not in self._held and not use.wait(connection, time.monotonic() + limit_s, shared=True):
            raise _being_dropped(key, limit_s, use.holders(connection))
        self._held.add(key)

    def give_up(self, connection: psycopg.Connection, key: str) -> None:
        self._held.discard(key)
        Lock(Right.USE, key).release(connection, shared=True)

    def take_again(self, connection: psycopg.Connection) -> None:
        """On a new session: the locks went with the last one. What somebody is dropping is not ours any more."""
        for key in tuple(self._held):
            if not Lock(Right.USE, key).attempt(connection, shared=True):
                self._held.discard(key)

    def forget(self) -> None:
        """The session ends, and the locks with it."""
        self._held.clear()


def find(connection: psycopg.Connection, key: str) -> Database | None:
    """The finished template of `key`, whatever state it is in."""
    name = naming.template_name(key)
    return next((database for database in databases.databases(connection) if database.name == name), None)


def _note_use(connection: psycopg.Connection, database: Database) -> None:
    """Best effort: it only decides which templates go first, and only among those that nobody uses."""
    now = databases.server_time(connection)
    if database.note is None or now - database.note.used < _NOTE_EVERY_S:
        return
    with suppress(Exception), connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '2s'")
        databases.annotate(connection, database.name, database.note._replace(used=now))


def _being_dropped(key: str, limit_s: float, holders: tuple[str, ...]) -> TemplateBusy:
    return TemplateBusy(
        f"the template database {naming.template_name(key)} could not be taken within {limit_s:g} s: it is being "
        f"dropped by {listed(holders)}",
        cause="whoever prunes templates hangs",
        remedy="end that process, and run again",
    )
