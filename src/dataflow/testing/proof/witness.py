"""Reading in the log what was committed while a test ran: in which database, by whom, and what is left of it."""

from __future__ import annotations

from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING

from dataflow.testing.dsn import Dsn
from dataflow.testing.lease import backends
from dataflow.testing.lease.connecting import connect, silent_settings
from dataflow.testing.lease.strategy import facts, why_not_by_log
from dataflow.testing.proof.escape import Escape, PutBack, Verdict, written
from dataflow.testing.proof.horizon import LOW_BITS, Window
from dataflow.testing.proof.inside import Left, look, remove
from dataflow.testing.reset.log import EXTENSION, Log, install, position_bytes
from dataflow.testing.template.session import explained, first_words, forget, is_alive

if TYPE_CHECKING:
    import psycopg

    from dataflow.testing.reset.footprint import BlockRecord

# Reading them takes 0.1 to 0.2 s (7 to 13 ms per MB, measured).
MOST_BYTES = 16 << 20
# So much earlier may a transaction have begun to write that was under way when the test began.
_EARLIER_BYTES = 1 << 20
# What of these transactions wrote to other databases.
_ELSEWHERE = """
SELECT DISTINCT xid::text::bigint FROM {schema}.pg_get_wal_block_info(%(since)s, %(up_to)s, false)
 WHERE reldatabase NOT IN (0, %(database)s) AND xid::text::bigint = ANY (%(numbers)s)
"""
_SCHEMA = (
    "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = %s"
)
_OID = "SELECT oid::bigint FROM pg_database WHERE datname = %s"

OPEN_BEFORE = "a transaction that was open when the test began was committed while it ran"


class Witness:
    """Looks after one database, over a session of its own from which the log is read.

    :param admin: maintenance database, and the role that may do most there.
    """

    def __init__(self, admin: Dsn) -> None:
        self._admin = admin
        self._connection: psycopg.Connection | None = None
        self._log: Log | None = None
        self._unable: str | None = None
        self._own: set[int] = set()  # transactions by which something was undone

    def judge(self, window: Window, database: str) -> Verdict:
        """What of it was in this database. Rows that were only added are taken out again.

        :raises ServerError: it cannot be asked.
        """
        with explained("tell what was committed while a test ran"):
            connection = self._connected()
            if window.committed is None:  # asked before something of ours is committed
                answer = connection.execute(window.horizon.question.encode()).fetchone()
                window = window._replace(committed=tuple(answer[0] or ()) if answer else ())
            log = self._ready(connection)
            if log is None:
                return Verdict(f"something was committed meanwhile, and where cannot be told: {self._unable}")
            row = connection.execute(_OID, (database,)).fetchone()
            if row is None:
                return Verdict("its database is gone")
            return self._judge(connection, log, window, database, int(row[0]))

    def close(self) -> None:
        """Idempotent."""
        connection, self._connection, self._log = self._connection, None, None
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """In a forked child: the session is that of the parent."""
        connection, self._connection, self._log = self._connection, None, None
        if connection is not None:
            forget(connection)

    def _connected(self) -> psycopg.Connection:
        if self._connection is not None and not is_alive(self._connection):
            self.close()
        if self._connection is None:
            self._connection = connect(self._admin)
        return self._connection

    def _ready(self, connection: psycopg.Connection) -> Log | None:
        if self._log is None:
            self._unable = why_not_by_log(facts(connection))
            if self._unable is None:
                install(connection)
                self._log = Log(connection, MOST_BYTES)
        return self._log

    def _judge(
        self, connection: psycopg.Connection, log: Log, window: Window, database: str, oid: int
    ) -> Verdict:
        since = window.horizon.position
        if window.open_before:
            since = _earlier(since)
        read = log.read(since, oid)
        if read.too_long:
            return Verdict(
                f"more than {MOST_BYTES >> 20} MB of log were written while it ran, which takes too long to read"
            )
        committed = window.numbers - self._own
        files = written(read.records, committed)
        with closing(self._inside(connection, database)) as session:
            left = look(session, files, committed)
            if left.changes:
                return Verdict(escape=self._escape(session, left, window, oid))
        if self._unexplained(connection, window, read.records, (since, read.up_to), oid):
            return Verdict(OPEN_BEFORE)
        return Verdict()

    def _inside(self, connection: psycopg.Connection, database: str) -> psycopg.Connection:
        settings = silent_settings(connection.info.server_version)
        return connect(self._admin.with_database(database), settings)

    def _unexplained(
        self,
        connection: psycopg.Connection,
        window: Window,
        records: list[BlockRecord],
        between: tuple[str, str],
        oid: int,
    ) -> bool:
        """One that was open before is not known to have written elsewhere."""
        numbers = window.open_before - {record.xid for record in records}
        if not numbers:
            return False
        schema = connection.execute(_SCHEMA, (EXTENSION,)).fetchone()
        assert schema is not None, "the extension is there"
        since, up_to = between
        values = {"since": since, "up_to": up_to, "database": oid, "numbers": list(numbers)}
        rows = connection.execute(_ELSEWHERE.format(schema=schema[0]).encode(), values).fetchall()
        return bool(numbers - {int(number) for (number,) in rows})

    def _escape(self, session: psycopg.Connection, left: Left, window: Window, oid: int) -> Escape:
        import psycopg

        recent = backends.at_work(
            session, oid, monotonic() - window.began, but=(session.info.backend_pid, *window.own)
        )
        sessions = tuple(map(backends.described, recent))
        if left.removable is None:
            return Escape(left.changes, sessions, PutBack.STAYS)
        try:
            self._own.add(remove(session, left.removable))
        except psycopg.Error as error:
            return Escape(left.changes, sessions, PutBack.STAYS, f"undoing it failed: {first_words(error)}")
        return Escape(left.changes, sessions, PutBack.UNDONE)


def _earlier(position: str) -> str:
    at = max(position_bytes(position) - _EARLIER_BYTES, 1)
    return f"{at >> 32:X}/{at & LOW_BITS:X}"
