"""Advisory locks: who builds a template, and who uses it.

They are session locks, so they vanish with whoever holds them, however that ends. PostgreSQL keeps them per
database: they exclude only those who take them in the same maintenance database.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import psycopg

_POLL_S = 0.02
_HOLDERS = """
SELECT pid, activity.application_name, extract(epoch FROM now() - activity.backend_start)::float8
  FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
 WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND classid = %s::oid AND objid = %s::oid AND objsubid = 2
 ORDER BY pid
"""


class Right(IntEnum):
    """The two kinds of lock, by their class ids ("tddB", "tddU")."""

    BUILD = 0x74646442  # held alone, while a template is being built
    USE = 0x74646455  # shared by live runs; held alone to drop the template


class Lock(NamedTuple):
    """One lock. Keys that share their first 8 digits share it too: they wait for each other in vain, no more."""

    right: Right
    key: str

    @property
    def number(self) -> int:
        """From 0 up, as pg_locks shows it."""
        return int(self.key[:8], 16)

    @property
    def arguments(self) -> tuple[int, int]:
        return int(self.right), self.number - (1 << 32 if self.number >= 1 << 31 else 0)

    def attempt(self, connection: psycopg.Connection, *, shared: bool = False) -> bool:
        """Take it if that needs no waiting. What the session holds already is no hindrance; locks add up."""
        query = (
            "SELECT pg_try_advisory_lock_shared(%s::int, %s::int)"
            if shared
            else "SELECT pg_try_advisory_lock(%s::int, %s::int)"
        )
        row = connection.execute(query, self.arguments).fetchone()
        return row is not None and bool(row[0])

    def wait(
        self,
        connection: psycopg.Connection,
        deadline: float,
        *,
        shared: bool = False,
        waiting_for: Callable[[tuple[str, ...]], None] = lambda holders: None,
    ) -> bool:
        """Take it; False when it was not free until `deadline` (monotonic, s).

        :param waiting_for: is told the holders once, as soon as it turns out that there are any.
        """
        told = False
        while not self.attempt(connection, shared=shared):
            if not told and (now := self.holders(connection)):
                waiting_for(now)
                told = True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def release(self, connection: psycopg.Connection, *, shared: bool = False) -> None:
        query = (
            "SELECT pg_advisory_unlock_shared(%s::int, %s::int)"
            if shared
            else "SELECT pg_advisory_unlock(%s::int, %s::int)"
        )
        connection.execute(query, self.arguments)

    def holders(self, connection: psycopg.Connection) -> tuple[str, ...]:
        """Who has it, other than this session, in words."""
        rows = connection.execute(_HOLDERS, (int(self.right), self.number)).fetchall()
        return tuple(holder_text(pid, name, age_s) for pid, name, age_s in rows)


def holder_text(backend: int, application_name: str, age_s: float) -> str:
    """``process 4711@host pytest tests (backend 99, for 3 s)``; other programs by the name that they gave."""
    ours = application_name.removeprefix("dataflow-tdd ")
    who = f"process {ours}" if ours != application_name else application_name or "a client without a name"
    return f"{who} (backend {backend}, for {age_s:.0f} s)"


def listed(holders: tuple[str, ...]) -> str:
    return "; ".join(holders) or "somebody who has gone by now"
