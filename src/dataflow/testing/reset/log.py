"""Reading the write-ahead log of the server, through the extension pg_walinspect."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.reset.batch import Row, send
from dataflow.testing.reset.footprint import BlockRecord

if TYPE_CHECKING:
    import psycopg

# A longer log takes longer to read than a clone takes to make: 7 to 13 ms per MB (measured).
MOST_BYTES = 4 << 20
# Records of indexes change with those of their tables, which tell all.
_INDEXES = "'Btree', 'Hash', 'Gin', 'Gist', 'SPGist', 'BRIN'"
_MAIN_FORK = 0
_COLUMNS = """
       info.start_lsn, info.reldatabase = 0, info.relfilenode, info.block_id, info.relblocknumber, info.xid,
       info.resource_manager, info.record_type, info.description
"""
# Who is inside is asked first: whatever those did who have gone by then stands before the message, and is read.
# The extension reads what is flushed, and so the message comes before it: the function depends on the message.
# Up to the end of the message, and not up to where the log is flushed: that may be in the middle of somebody's
# record, which would be left out here, and next time too, when reading begins behind its start.
# A session is counted for good before it is gone from the number of those that are there.
_INSIDE = """
SELECT here.sessions, {unfinished} AS unfinished, pg_stat_get_db_sessions($1) AS visits
  FROM (SELECT pg_stat_get_db_numbackends($1) AS sessions OFFSET 0) AS here
"""
_PREPARED = "EXISTS (SELECT FROM pg_prepared_xact() WHERE dbid = $1)"
_SLOTS = "EXISTS (SELECT FROM pg_get_replication_slots() WHERE datoid = $1)"  # there are none of a database else
_READ = f"""
PREPARE dataflow_tdd_read (oid, pg_lsn, boolean, pg_lsn) AS
SELECT log.sessions, log.unfinished, log.visits, log.up_to, {_COLUMNS}
  FROM (SELECT inside.*,
               CASE WHEN NOT $3 OR (inside.sessions = 1 AND NOT inside.unfinished) THEN {{up_to}} END AS up_to
          FROM ({_INSIDE} OFFSET 0) AS inside OFFSET 0) AS log
  LEFT JOIN LATERAL (
       SELECT * FROM {{schema}}.pg_get_wal_block_info(
              $2, CASE WHEN log.up_to - $2 <= {{most_bytes}} THEN log.up_to END, false)
        WHERE (reldatabase = $1 OR reldatabase = 0)
          AND relforknumber = {_MAIN_FORK} AND resource_manager NOT IN ({_INDEXES})) AS info ON true
"""
_POSITION = "pg_current_wal_insert_lsn()"
_PREPARE_GLANCE = f"PREPARE dataflow_tdd_glance (oid) AS SELECT {_POSITION}, asked.* FROM ({_INSIDE}) AS asked"
_MESSAGE = "pg_logical_emit_message(false, 'dataflow-tdd', '', true)"
_FLUSHES_BY_MESSAGE_SINCE = 170_000
# Before PostgreSQL 17 only the end of a transaction flushes. If it did not, the division fails.
_FLUSH_16 = "SELECT pg_logical_emit_message(true, 'dataflow-tdd', '')::text"
_FLUSHED_16 = "$4 + 0 / (pg_current_wal_flush_lsn() >= $4)::int"
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


class Inside(NamedTuple):
    """Who was in a database, ourselves included, before its log was read.

    :param unfinished: transactions are prepared in it, or replication slots read from it.
    :param visits: sessions that there ever were in it, those that are there now perhaps left out.
    """

    sessions: int
    unfinished: bool
    visits: int

    @property
    def alone(self) -> bool:
        return self.sessions == 1 and not self.unfinished


class Written(NamedTuple):
    """What was written from `since` up to `up_to`, positions of the log. :param most_bytes: that were read."""

    since: str
    up_to: str
    records: list[BlockRecord]
    inside: Inside
    most_bytes: int = MOST_BYTES

    @property
    def size_bytes(self) -> int:
        return position_bytes(self.up_to) - position_bytes(self.since)

    @property
    def too_long(self) -> bool:
        """It was not read."""
        return self.size_bytes > self.most_bytes


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
    """The log as one connection sees it; its database must have pg_walinspect, and its role may use that.

    :param most_bytes: a longer one is not read. :ivar schema: of the extension, as SQL.
    """

    def __init__(self, connection: psycopg.Connection, most_bytes: int = MOST_BYTES) -> None:
        self._connection = connection
        self._most_bytes = most_bytes
        self._flushes_by_message = connection.info.server_version >= _FLUSHES_BY_MESSAGE_SINCE
        row = connection.execute(_SCHEMA, (EXTENSION,)).fetchone()
        assert row is not None, "the extension is there"
        self.schema = str(row[0])
        # Or psycopg deallocates all statements, ours included, when it has prepared too many of its own.
        connection.prepare_threshold = None
        up_to = _MESSAGE if self._flushes_by_message else _FLUSHED_16
        for query in (_READ, _PREPARE_GLANCE):
            text = query.format(
                up_to=up_to, schema=self.schema, unfinished=_unfinished(connection), most_bytes=most_bytes
            )
            connection.execute(text.encode())

    def position(self) -> str:
        """Where the next record will stand."""
        return str(send(self._connection, [f"SELECT {_POSITION}"]).rows[0][0])

    def read(self, since: str, database: int) -> Written:
        """What was written to `database` (its oid) and to no database since a position.

        :raises psycopg.Error: that part of the log is gone, or may not be read.
        """
        found = self._read_if(since, database, only_alone=False)
        assert isinstance(found, Written)
        return found

    def read_if_alone(self, since: str, database: int) -> Written | Inside:
        """The same when nobody else was in the database before it was read; else who was."""
        return self._read_if(since, database, only_alone=True)

    def glance(self, database: int) -> tuple[str, Inside]:
        """Where the next record will stand, and who is inside after that."""
        row = send(self._connection, [f"EXECUTE dataflow_tdd_glance({database})"]).rows[0]
        return str(row[0]), _inside(row[1:])

    def _read_if(self, since: str, database: int, *, only_alone: bool) -> Written | Inside:
        up_to = None
        if not self._flushes_by_message:
            if only_alone and not (inside := self.glance(database)[1]).alone:
                return inside
            up_to = send(self._connection, [_FLUSH_16]).rows[0][0]
        known = f"'{up_to}'" if up_to else "NULL"
        query = f"EXECUTE dataflow_tdd_read({database}, '{since}', {str(only_alone).lower()}, {known})"
        rows = send(self._connection, [query]).rows
        if rows[0][3] is None:
            return _inside(rows[0])
        records = [_record(*row[4:]) for row in rows if row[4] is not None]  # type: ignore[arg-type]
        return Written(since, rows[0][3], records, _inside(rows[0]), self._most_bytes)


def _unfinished(connection: psycopg.Connection) -> str:
    """Looking for slots costs as much as all else, so it is done only where there can be some of a database."""
    row = connection.execute("SELECT current_setting('wal_level')").fetchone()
    return f"({_PREPARED} OR {_SLOTS})" if row and row[0] == "logical" else _PREPARED


def _inside(row: Row) -> Inside:
    return Inside(int(row[0] or 0), row[1] != "f", int(row[2] or 0))


def _record(
    lsn: str,
    shared: str,
    filenode: str,
    block_id: str,
    block: str,
    xid: str | None,
    manager: str,
    kind: str,
    description: str | None,
) -> BlockRecord:
    numbers = int(filenode), int(block_id), int(block), int(xid or 0)
    return BlockRecord(lsn, shared == "t", *numbers, manager, kind, description or "")


def position_bytes(lsn: str) -> int:
    """A position such as ``0/1BF6BF8`` as a number of bytes."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)
