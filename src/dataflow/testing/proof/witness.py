"""Reading in the log what was committed while a test ran: in which database, by whom, and what is left of it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from dataflow.testing.dsn import Dsn
from dataflow.testing.lease import backends
from dataflow.testing.lease.connecting import connect, silent_settings
from dataflow.testing.lease.strategy import facts, why_not_by_log
from dataflow.testing.proof.before import OPEN_BEFORE, Before
from dataflow.testing.proof.escape import Escape, PutBack, Verdict, written
from dataflow.testing.proof.horizon import HORIZON, LOW_BITS, Horizon, Window, read_horizon
from dataflow.testing.proof.inside import LOCK_LIMIT, Left, look, remove
from dataflow.testing.reset.batch import send
from dataflow.testing.reset.log import Log, install, position_bytes
from dataflow.testing.template.session import explained, first_words, forget, is_alive

if TYPE_CHECKING:
    import psycopg

# Reading them takes 0.1 to 0.2 s (7 to 13 ms per MB, measured).
MOST_BYTES = 16 << 20
# So much earlier may a transaction have begun to write that was under way when the test began.
_EARLIER_BYTES = 1 << 20
_OID = "SELECT oid::bigint FROM pg_database WHERE datname = %s"
_UNLOGGED = (
    "something was committed meanwhile, and whether rows of unlogged tables were deleted cannot be told: {}"
)
_DROPPED = Escape(
    ("the database itself was dropped",), (), PutBack.STAYS, "without a schema of ours there is no copy"
)


class Witness:
    """Looks after one database, over a session of its own from which the log is read.

    :param admin: maintenance database, and the role that may do most there.
    """

    def __init__(self, admin: Dsn) -> None:
        self._admin = admin
        self._connection: psycopg.Connection | None = None
        self._inside: dict[str, psycopg.Connection] = {}  # by the name of the database
        self._log: Log | None = None
        self._unable: str | None = None
        self._own: set[int] = set()  # transactions that are held against no test; also those that undid something

    def horizon(self) -> Horizon:
        """
        :raises ServerError: it cannot be asked.
        """
        with explained("tell what was committed"):
            (answer,) = send(self._connected(), [HORIZON]).rows
        return read_horizon(*answer)

    def excuse(self, horizon: Horizon) -> None:
        """What was committed since is held against no test.

        :raises ServerError: it cannot be asked.
        """
        with explained("tell what was committed"):
            answer = self._connected().execute(horizon.question.encode()).fetchone()
        self._own.update(int(number) & LOW_BITS for number in (answer[0] if answer else None) or ())

    def judge(self, window: Window, database: str) -> Verdict:
        """What of it was in this database. Rows that were only added are taken out again.

        :raises ServerError: it cannot be asked.
        """
        with explained("tell what was committed while a test ran"):
            connection = self._connected()
            if window.committed is None:  # asked before something of ours is committed
                answer = connection.execute(window.horizon.question.encode()).fetchone()
                window = window._replace(committed=tuple(answer[0] or ()) if answer else ())
            if not window.committed:
                return Verdict()
            log = self._ready(connection)
            if log is None:
                return Verdict(f"something was committed meanwhile, and where cannot be told: {self._unable}")
            row = connection.execute(_OID, (database,)).fetchone()
            if row is None:
                return Verdict(escape=_DROPPED)
            return self._judge(connection, log, window, database, int(row[0]))

    def close(self) -> None:
        """Idempotent."""
        for connection in self._sessions():
            connection.close()

    def forget(self) -> None:
        """In a forked child: the sessions are those of the parent."""
        for connection in self._sessions():
            forget(connection)

    def _sessions(self) -> list[psycopg.Connection]:
        """Those that are open, which are let go of."""
        sessions = [*self._inside.values(), *([self._connection] if self._connection is not None else [])]
        self._connection = self._log = None
        self._inside = {}
        return sessions

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
        before = Before(connection, log.schema, window, read)
        committed = (window.numbers | before.parts) - self._own
        session = self._entered(connection, database)
        left = look(session, written(read.records, committed), committed)
        if left.changes:
            return Verdict(escape=self._escape(session, left, window, oid))
        if left.unlogged and not committed <= before.elsewhere(oid, committed):
            return Verdict(_UNLOGGED.format(", ".join(left.unlogged)))
        return Verdict(OPEN_BEFORE) if before.unexplained(oid) else Verdict()

    def _entered(self, connection: psycopg.Connection, database: str) -> psycopg.Connection:
        """A session in the database of the tests. It stays open: with several workers it is asked often."""
        known = self._inside.pop(database, None)
        if known is None or not is_alive(known):
            if known is not None:
                known.close()
            settings = silent_settings(connection.info.server_version) | LOCK_LIMIT
            known = connect(self._admin.with_database(database), settings)
        self._inside[database] = known
        return known

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
