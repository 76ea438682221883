"""Reading the write-ahead log of the server, through the extension pg_walinspect."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.reset.footprint import BlockRecord

if TYPE_CHECKING:
    import psycopg

# A longer log takes longer to read than a clone takes to make: 7 to 13 ms per MB (measured).
MOST_BYTES = 4 << 20
# Records of indexes change with those of their tables, which tell all.
_INDEXES = ("Btree", "Hash", "Gin", "Gist", "SPGist", "BRIN")
_MAIN_FORK = 0
_COLUMNS = """
       info.start_lsn::text, info.reldatabase = 0, info.relfilenode::bigint, info.block_id::int,
       info.relblocknumber::bigint, info.xid::text::bigint,
       info.resource_manager, info.record_type, info.description
"""
# The extension reads what is flushed, and so the message goes first: the second function depends on the first.
# Up to the end of the message, and not up to where the log is flushed: that may be in the middle of somebody's
# record, which would be left out here, and next time too, when reading begins behind its start.
_READ = f"""
SELECT log.up_to::text, pg_stat_get_db_numbackends(%(database)s), {_COLUMNS}
  FROM (SELECT {{up_to}} AS up_to OFFSET 0) AS log
  LEFT JOIN LATERAL (
       SELECT * FROM {{schema}}.pg_get_wal_block_info(
              %(since)s::pg_lsn,
              CASE WHEN log.up_to - %(since)s::pg_lsn <= {MOST_BYTES} THEN log.up_to END,
              false)
        WHERE (reldatabase = %(database)s OR reldatabase = 0)
          AND relforknumber = {_MAIN_FORK} AND resource_manager <> ALL (%(indexes)s)) AS info ON true
"""
_MESSAGE = "pg_logical_emit_message(false, 'dataflow-tdd', '', true)"
_FLUSHES_BY_MESSAGE_SINCE = 170_000
# Before PostgreSQL 17 only the end of a transaction flushes. If it did not, the division fails.
_FLUSH_16 = "SELECT pg_logical_emit_message(true, 'dataflow-tdd', '')::text"
_FLUSHED_16 = "%(up_to)s::pg_lsn + 0 / (pg_current_wal_flush_lsn() >= %(up_to)s::pg_lsn)::int"
_POSITION = "SELECT pg_current_wal_insert_lsn()::text"
EXTENSION = "pg_walinspect"
_INSTALL = (
    "CREATE SCHEMA IF NOT EXISTS dataflow_tdd",
    f"CREATE EXTENSION IF NOT EXISTS {EXTENSION} SCHEMA dataflow_tdd",
)
# One that came with PostgreSQL 15, and stayed when the server was upgraded, lacks what we read with.
_IS_OLD = "SELECT FROM pg_extension WHERE extname = %s AND extversion = '1.0'"
_UPDATE = f"ALTER EXTENSION {EXTENSION} UPDATE"
_SCHEMA = (
    "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = %s"
)


class Written(NamedTuple):
    """What was written from `since` up to `up_to`, positions of the log.

    :param sessions: how many there were in the database.
    """

    since: str
    up_to: str
    records: list[BlockRecord]
    sessions: int = 0

    @property
    def size_bytes(self) -> int:
        return position_bytes(self.up_to) - position_bytes(self.since)

    @property
    def too_long(self) -> bool:
        """It was not read."""
        return self.size_bytes > MOST_BYTES


def install(connection: psycopg.Connection) -> None:
    """Make the extension in the database of `connection`, in a schema of ours, unless it is there."""
    import psycopg

    for statement in _INSTALL:
        # Another process may be faster.
        with suppress(
            psycopg.errors.UniqueViolation, psycopg.errors.DuplicateObject, psycopg.errors.DuplicateSchema
        ):
            connection.execute(statement.encode())
    if connection.execute(_IS_OLD, (EXTENSION,)).fetchone() is not None:
        connection.execute(_UPDATE.encode())


class Log:
    """The log as one connection sees it; its database must have pg_walinspect, and its role may use that."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._flushes_by_message = connection.info.server_version >= _FLUSHES_BY_MESSAGE_SINCE
        row = connection.execute(_SCHEMA, (EXTENSION,)).fetchone()
        assert row is not None, "the extension is there"
        up_to = _MESSAGE if self._flushes_by_message else _FLUSHED_16
        self._read = _READ.format(up_to=up_to, schema=row[0].replace("%", "%%")).encode()

    def position(self) -> str:
        """Where the next record will stand."""
        row = self._connection.execute(_POSITION.encode()).fetchone()
        assert row is not None
        return str(row[0])

    def read(self, since: str, database: int) -> Written:
        """What was written to `database` (its oid) and to no database since a position.

        :raises psycopg.Error: that part of the log is gone, or may not be read.
        """
        values: dict[str, object] = {"since": since, "database": database, "indexes": list(_INDEXES)}
        if not self._flushes_by_message:
            row = self._connection.execute(_FLUSH_16).fetchone()
            values["up_to"] = row[0] if row else None
        rows = self._connection.execute(self._read, values, prepare=True).fetchall()
        records = [BlockRecord(*row[2:]) for row in rows if row[2] is not None]
        return Written(since, str(rows[0][0]), records, int(rows[0][1]))


def position_bytes(lsn: str) -> int:
    """A position such as ``0/1BF6BF8`` as a number of bytes."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)
