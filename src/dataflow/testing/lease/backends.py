"""Whoever is in a test's database when the test is over: awaited for a moment, then ended and named."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.masking import mask

if TYPE_CHECKING:
    import psycopg

# A backend whose client has closed the connection needs an instant to go; on a busy machine a longer one.
GRACE_S = 0.25
_END_LIMIT_S = 10.0
_SHOWN = 120

_OTHERS = """
SELECT pid, coalesce(application_name, ''), coalesce(state, ''),
       extract(epoch FROM clock_timestamp() - backend_start)::float8, coalesce(query, ''),
       backend_type = 'autovacuum worker', NULL
  FROM pg_stat_get_activity(NULL)
 WHERE datid = %(database)s AND pid <> %(own)s AND backend_type <> 'parallel worker'
UNION ALL
SELECT 0, '', '', 0, '', false, gid FROM pg_prepared_xact() WHERE dbid = %(database)s
"""

_AT_WORK = """
SELECT pid, coalesce(application_name, ''), coalesce(state, ''),
       extract(epoch FROM clock_timestamp() - backend_start)::float8, coalesce(query, '')
  FROM pg_stat_get_activity(NULL)
 WHERE datid = %(database)s AND pid <> ALL (%(but)s) AND backend_type = 'client backend'
   AND state_change >= clock_timestamp() - %(since_s)s * interval '1 second'
"""


class Backend(NamedTuple):
    """A session of PostgreSQL.

    :param age_s: seconds since it began. :param statement: its last one, shortened, without passwords.
    """

    pid: int
    application: str
    state: str
    age_s: float
    statement: str


class Inside(NamedTuple):
    """:param backends: sessions. :param prepared: names of transactions prepared for a two-phase commit.
    :param vacuuming: process ids of the server's own workers, for which nobody has to answer.
    """

    backends: tuple[Backend, ...]
    prepared: tuple[str, ...] = ()
    vacuuming: tuple[int, ...] = ()

    @property
    def nobody(self) -> bool:
        return not self.backends and not self.vacuuming

    @property
    def pids(self) -> list[int]:
        return [*(backend.pid for backend in self.backends), *self.vacuuming]


def inside(connection: psycopg.Connection, database: int, own: int) -> Inside:
    """Who is in a database (its oid), apart from process `own`, and which transactions were prepared in it."""
    rows = connection.execute(_OTHERS, {"database": database, "own": own}).fetchall()
    if not rows:
        return Inside(())
    return Inside(
        tuple(_backend(*row[:5]) for row in rows if row[6] is None and not row[5]),
        tuple(row[6] for row in rows if row[6] is not None),
        tuple(row[0] for row in rows if row[5]),
    )


def at_work(
    connection: psycopg.Connection, database: int, since_s: float, but: Collection[int]
) -> tuple[Backend, ...]:
    """Sessions in a database that did something within so many seconds, and are still there.

    :param but: process ids of others.
    """
    values = {"database": database, "since_s": since_s, "but": list(but)}
    return tuple(_backend(*row) for row in connection.execute(_AT_WORK, values).fetchall())


def leave_alone(connection: psycopg.Connection, database: int, own: int, grace_s: float = GRACE_S) -> Inside:
    """Wait until no session is inside, at most `grace_s` seconds; whoever is left was left on purpose."""
    deadline = time.monotonic() + grace_s
    pause = 0.0001
    while True:
        found = inside(connection, database, own)
        if not found.backends or time.monotonic() >= deadline:
            return found
        time.sleep(pause)
        pause = min(pause * 1.5, 0.01)


def end(connection: psycopg.Connection, database: int, own: int) -> tuple[str, ...]:
    """End all sessions in a database, and wait until they are gone; returns the transactions left prepared.

    :raises TimeoutError: one does not end.
    """
    deadline = time.monotonic() + _END_LIMIT_S
    while not (found := inside(connection, database, own)).nobody:
        connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (found.pids,))
        if time.monotonic() > deadline:
            last = found.backends[0].statement if found.backends else "autovacuum"
            raise TimeoutError(f"backend {found.pids[0]} does not end: {last}")
        time.sleep(0.002)
    return found.prepared


def described(backend: Backend, where: str | None = None) -> str:
    """One session in words. :param where: the source line that opened it, if known."""
    name = f" ({backend.application})" if backend.application else ""
    opened = f", opened at {where}" if where else ""
    statement = f", last statement: {backend.statement}" if backend.statement else ", no statement yet"
    state = f"{backend.state or 'no state'}, {backend.age_s:.1f} s old"
    return f"backend {backend.pid}{name}, {state}{opened}{statement}"


def _backend(pid: int, application: str, state: str, age_s: float, statement: str) -> Backend:
    return Backend(pid, application, state, age_s, _shown(statement))


def _shown(statement: str) -> str:
    text = mask(" ".join(statement.split()))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
