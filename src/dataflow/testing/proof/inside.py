"""Looking into the database itself: what committed transactions left there, and taking it out again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.proof.escape import File, row_changes
from dataflow.testing.reset.shape import FIRST_OF_USERS, REACTS

if TYPE_CHECKING:
    import psycopg

_RELATIONS = f"""
SELECT pg_relation_filenode(c.oid)::bigint, c.oid::regclass::text, c.relkind::text, c.oid < {FIRST_OF_USERS},
       {REACTS}
  FROM pg_class c WHERE pg_relation_filenode(c.oid) = ANY (%(files)s)
"""
_UNLOGGED = """
SELECT oid::regclass::text FROM pg_class
 WHERE relpersistence = 'u' AND relkind = 'r' AND pg_relation_size(oid) > 0
"""
# Names are the server's own, quoted by it; numbers are numbers.
_THEIRS = "xmin = ANY ('{{{numbers}}}'::xid[])"
_IN_BLOCKS = "ctid >= '({first},0)' AND ctid < '({end},0)' AND " + _THEIRS
_MADE = (
    "SELECT DISTINCT oid::regclass::text FROM pg_class"
    " WHERE relpersistence <> 't' AND relkind IN ('r', 'v', 'm', 'S', 'f', 'p') AND {theirs} ORDER BY 1"
)
# Schemas, domains and constraints of domains have no row in pg_class.
_LASTING = r"""
WITH temporary AS (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_')
SELECT (SELECT count(*) FROM pg_class WHERE relpersistence <> 't' AND {theirs})
     + (SELECT count(*) FROM pg_namespace WHERE oid NOT IN (TABLE temporary) AND {theirs})
     + (SELECT count(*) FROM pg_type WHERE typnamespace NOT IN (TABLE temporary) AND {theirs})
     + (SELECT count(*) FROM pg_constraint WHERE connamespace NOT IN (TABLE temporary) AND {theirs})
"""
# What ANALYZE writes, which autovacuum may do at any time.
_STATISTICS = frozenset({"pg_statistic", "pg_statistic_ext_data"})
# What a temporary table has rows in, until its session ends.
_OF_TEMPORARY = frozenset(
    {
        "pg_attrdef",
        "pg_attribute",
        "pg_class",
        "pg_constraint",
        "pg_depend",
        "pg_index",
        "pg_namespace",
        "pg_sequence",
        "pg_type",
    }
)
# Whoever holds a lock may be waiting for the end of this very test.
LOCK_LIMIT = {"lock_timeout": "1s"}


class _Relation(NamedTuple):
    """:param reacts: it has triggers or rules that fire even for us, so deleting from it does more, or less."""

    name: str
    kind: str
    catalog: bool
    reacts: bool


_GONE = _Relation("", "", False, False)


class Left(NamedTuple):
    """What is there now.

    :param changes: in words. :param removable: conditions under which rows can be deleted, by table; None: it
        takes more than that to undo it.
    :param unlogged: tables that have, or had, rows of which the log tells nothing.
    """

    changes: tuple[str, ...] = ()
    removable: Mapping[str, str] | None = {}
    unlogged: tuple[str, ...] = ()


def look(connection: psycopg.Connection, files: Mapping[int, File], committed: Collection[int]) -> Left:
    """What is left of what these transactions wrote.

    :param connection: has the settings `LOCK_LIMIT`. :param committed: their numbers, of 32 bits.
    :raises psycopg.Error: somebody has locked what has to be looked at, or it is gone.
    """
    theirs = _THEIRS.format(numbers=",".join(map(str, committed)))
    rows = connection.execute(_RELATIONS, {"files": list(files)}).fetchall()
    known = {int(file): _Relation(*row) for file, *row in rows}
    changes: list[str] = []
    removable: dict[str, str] = {}
    catalogs: dict[str, bool] = {}  # and whether older rows were changed there
    lasting = False
    for file, (touched, (first, last)) in files.items():
        name, kind, catalog, reacts = known.get(file, _GONE)
        if kind not in ("r", "m") or name in _STATISTICS:
            continue  # sequences and what is kept out of line; a table that is gone again
        where = _IN_BLOCKS.format(first=first, end=last + 1, numbers=",".join(map(str, committed)))
        present = _count_if_free(connection, name, where)
        if present is None:
            return Left((*changes, f"{name}: rows were changed, and a session holds a lock on it"), None)
        if catalog:
            if present or touched.gone:
                catalogs[name] = bool(touched.gone)
            continue
        change = row_changes(name, touched, present)
        if change is not None:
            changes.append(change)
            removable[name] = where
            lasting = lasting or reacts or bool(touched.gone) or bool(touched.strange)
    if change := _schema_change(connection, catalogs, theirs):
        return Left((*changes, change), None)
    unlogged = tuple(_names(connection, _UNLOGGED))
    for name in unlogged:
        if present := _count(connection, name, theirs):
            changes.append(f"{name} (unlogged): {present} rows added or updated")
    # Whether older ones were there, and are gone, nobody can tell.
    return Left(tuple(changes), None if lasting or unlogged else removable, unlogged)


def remove(connection: psycopg.Connection, removable: Mapping[str, str]) -> int:
    """Delete such rows, in one transaction; returns its number, of 32 bits.

    :raises psycopg.Error: it was not possible, and nothing was done.
    """
    with connection.transaction():
        for name, where in removable.items():
            connection.execute(f"DELETE FROM ONLY {name} WHERE {where}".encode())
        row = connection.execute("SELECT pg_current_xact_id()::text::bigint % (1::bigint << 32)").fetchone()
    assert row is not None
    return int(row[0])


def _schema_change(connection: psycopg.Connection, catalogs: Mapping[str, bool], theirs: str) -> str | None:
    if not catalogs:
        return None
    row = connection.execute(_LASTING.format(theirs=theirs).encode()).fetchone()
    temporary = catalogs.keys() <= _OF_TEMPORARY and not any(catalogs.values()) and row is not None and not row[0]
    if temporary:
        return None
    names = _names(connection, _MADE.format(theirs=theirs)) or sorted(catalogs)
    return f"the schema was changed: {', '.join(names)}"


def _count(connection: psycopg.Connection, name: str, where: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM ONLY {name} WHERE {where}".encode()).fetchone()
    return int(row[0]) if row else 0


def _count_if_free(connection: psycopg.Connection, name: str, where: str) -> int | None:
    """None: somebody has locked the table."""
    import psycopg

    try:
        return _count(connection, name, where)
    except psycopg.errors.LockNotAvailable:
        return None


def _names(connection: psycopg.Connection, query: str) -> list[str]:
    return [str(name) for (name,) in connection.execute(query.encode()).fetchall()]
