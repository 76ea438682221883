"""The right of a process to its databases: a lock that vanishes with it, so that others may clean up after it.

The lock is an advisory lock of the maintenance database, held by one session of the process. A database carries
its owner's token in its name; it is dropped by others only after they got the lock of that token, and while
nobody holds it in another database: not all processes need to have chosen the same one for maintenance.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from dataflow.testing.errors import ServerError
from dataflow.testing.server.dropping import drop_database

if TYPE_CHECKING:
    import psycopg

_CLASS = 0x7DD1  # the class of these locks, apart from others in the same database
_NAME = re.compile(r"tdd_lease_([0-9a-f]{7})_\d+")
_PATTERN = r"tdd\_lease\_%"
_TRY = """
SELECT pg_try_advisory_lock(%(class)s, %(key)s),
       EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
                  AND classid::bigint = %(class)s AND objid::bigint = %(key)s AND pid <> pg_backend_pid())
"""
_UNLOCK = "SELECT pg_advisory_unlock(%(class)s, %(key)s)"

log = logging.getLogger("dataflow.testing")


def new_token() -> str:
    return secrets.token_hex(4)[:7]  # 28 bits: a positive key of a lock


def database_name(token: str, number: int) -> str:
    return f"tdd_lease_{token}_{number}"


def token_of(name: str) -> str:
    """The token in the name of a database that `database_name` made."""
    return name.split("_")[2]


def own(connection: psycopg.Connection, token: str) -> None:
    """Hold the lock of `token` as long as the session lasts."""
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (_CLASS, int(token, 16)))


def drop_orphans(
    connection: psycopg.Connection, enter: Callable[[str], psycopg.Connection], but: Collection[str] = ()
) -> tuple[str, ...]:
    """Drop the databases of processes that died; returns their names. :param but: those that are in use."""
    rows = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", (_PATTERN,)).fetchall()
    owned: dict[str, list[str]] = {}
    for (name,) in rows:
        match = _NAME.fullmatch(name)
        if match and name not in but:
            owned.setdefault(match[1], []).append(name)
    dropped: list[str] = []
    for token, names in owned.items():
        key = {"class": _CLASS, "key": int(token, 16)}
        row = connection.execute(_TRY, key).fetchone()
        got, lives_elsewhere = row if row is not None else (False, True)
        try:
            if got and not lives_elsewhere:
                dropped += [name for name in names if _dropped(connection, name, enter)]
        finally:
            if got:
                connection.execute(_UNLOCK, key)
    return tuple(dropped)


def _dropped(connection: psycopg.Connection, name: str, enter: Callable[[str], psycopg.Connection]) -> bool:
    """What a dead process left must not keep a living one from its work."""
    import psycopg

    try:
        drop_database(connection, name, enter)
    except (psycopg.Error, ServerError) as error:
        if connection.closed:
            raise
        log.debug("%s, left by a process that died, could not be dropped: %s", name, error)
        return False
    return True
