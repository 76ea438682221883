"""Who gets which database: made from the template, lent, taken back, put back as it was or replaced."""

from __future__ import annotations

import logging
from contextlib import closing, suppress
from time import perf_counter
from typing import NamedTuple

import psycopg
from psycopg import sql

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError
from dataflow.testing.lease import backends
from dataflow.testing.lease.database import Database
from dataflow.testing.lease.lease import DatabaseLease
from dataflow.testing.lease.maintenance import Maintenance, NameOfTemplate
from dataflow.testing.lease.strategy import Strategy
from dataflow.testing.reset.log import Written
from dataflow.testing.reset.outcome import Outcome
from dataflow.testing.reset.plan import Plan
from dataflow.testing.reset.shape import Shape, read_shape
from dataflow.testing.server.dropping import drop_database
from dataflow.testing.template.session import explained

# Who copies a database gets none of its rights and limits.
_AS_MADE = """
SELECT oid::bigint FROM pg_database
 WHERE datname = %(name)s AND pg_get_userbyid(datdba) = %(owner)s AND datacl IS NULL AND datconnlimit = -1
   AND datallowconn AND NOT datistemplate
"""

log = logging.getLogger("dataflow.testing")


class Terms(NamedTuple):
    """How the broker works.

    :param spares: copies that are kept ready. :param limit_s: longest wait for a copy, in seconds.
    :param grace_s: seconds that sessions get to end by themselves when a test is over.
    """

    spares: int = 2
    limit_s: float = 60.0
    grace_s: float = backends.GRACE_S


class Returned(NamedTuple):
    """What was found when a database came back. Times in ms.

    :param leaked: sessions that were still there, each with the source line that opened it, if known.
    :param outcome: what was done. :param ended_ms: until the last session was gone.
    """

    leaked: tuple[tuple[backends.Backend, str | None], ...]
    prepared: tuple[str, ...]
    outcome: Outcome
    ended_ms: float


class Broker:
    """The databases of one process.

    :param admin: maintenance database, and a role that may create databases; locks and log are seen from there.
    :param user: as whom tests enter; owner of the databases. :param template: says what to copy, None for an
        empty database; asked again when the server was away, for a crash may have spoiled a template.
    :raises CannotCreateDatabase: the role may not. :raises ServerError: the server cannot be used.
    """

    def __init__(self, admin: Dsn, user: Dsn, template: NameOfTemplate, terms: Terms = Terms()) -> None:  # noqa: B008
        self._user = user
        self._terms = terms
        self._lent: dict[DatabaseLease, Database] = {}
        self._idle: list[Database] = []
        self._shape: Shape | None = None
        self._maintenance = Maintenance(
            admin, user.user or "", template, spares=terms.spares, limit_s=terms.limit_s
        )

    @property
    def strategy(self) -> Strategy:
        return self._maintenance.strategy

    @property
    def leases(self) -> tuple[DatabaseLease, ...]:
        """Those that are out now."""
        return tuple(self._lent)

    def lend(self, test_id: str, *, fresh: bool = False, ahead: bool = True) -> DatabaseLease:
        """A database like the template. :param fresh: one that no test has used, which is dropped afterwards.

        :param ahead: others may follow, and so copies are made ready for them.

        :raises ServerError: there is none.
        """
        with explained("have a database ready for a test"):
            database = self._ready(fresh, ahead)
        lease = DatabaseLease(test_id, self._user.with_database(database.name))
        self._lent[lease] = database
        return lease

    def take_back(self, lease: DatabaseLease) -> Returned | None:
        """End what the test left, and make its database ready for the next; None when that was done before.

        Whatever goes wrong, a database that may differ from the template is not lent again.
        """
        database = self._lent.pop(lease, None)
        if database is None:
            return None
        lease.end()
        started = perf_counter()
        found = backends.Inside(())
        ended_ms = 0.0
        try:
            written = self._written(database)
            if written is None:
                found = self._emptied(database)
            ended_ms = (perf_counter() - started) * 1e3
            outcome = self._put_back(database, written, found.prepared)
            outcome = self._without_strangers(lease, found, outcome)
        except BaseException as error:
            self._give_up(database)
            if not isinstance(error, psycopg.Error | ServerError | TimeoutError | OSError):
                raise
            log.debug("%s could not be put back: %s", database.name, error)
            outcome = _replaced(f"putting it back failed: {error}".strip().replace("\n", " "))
        else:
            self._keep_or_give_up(database, outcome)
        leaked = tuple((backend, lease.opened_at(backend.pid)) for backend in found.backends)
        return Returned(leaked, found.prepared, outcome, ended_ms)

    def renew(self, lease: DatabaseLease) -> None:
        """Put another copy in the place of a fresh one that is lent, under its name. Sessions inside are ended.

        :raises ServerError: that is not possible.
        """
        with explained("replace the database of a test by a fresh copy"):
            database = self._copy(ahead=False)
            admin = self._maintenance.connection
            drop_database(admin, lease.name, self._maintenance.enter)
            names = sql.Identifier(database.name), sql.Identifier(lease.name)
            admin.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names))
        self._lent[lease] = Database(lease.name, database.oid, None)

    def close(self) -> None:
        """Drop all databases of this process. Idempotent."""
        for database in (*self._idle, *self._lent.values()):
            database.close()
        for lease in self._lent:
            lease.end()
        self._idle.clear()
        self._lent.clear()
        self._maintenance.close()

    def _open_again(self) -> None:
        """The server was away: what was there is not trusted."""
        for database in self._idle:
            database.close()
        self._idle.clear()
        self._shape = None
        self._maintenance.open_again([database.name for database in self._lent.values()])

    def _ready(self, fresh: bool, ahead: bool) -> Database:
        if self._maintenance.lost:
            self._open_again()
        try:
            return self._take(fresh, ahead)
        except psycopg.OperationalError:
            if not self._maintenance.lost:
                raise
            # The server was away since we last asked it something.
            self._open_again()
            return self._take(fresh, ahead)

    def _take(self, fresh: bool, ahead: bool) -> Database:
        database = None if fresh else self._take_idle()
        if database is not None:
            return database
        # Whether the server was away: copies that were made before are not taken then.
        self._maintenance.connection.execute("SELECT 1")
        return self._new(keep=not fresh, ahead=ahead)

    def _take_idle(self) -> Database | None:
        while self._idle:
            database = self._idle.pop()
            if self._undisturbed(database):
                return database
            self._give_up(database)
        return None

    def _undisturbed(self, database: Database) -> bool:
        if not database.usable or self._maintenance.in_place is None:
            return False
        try:
            return self._maintenance.in_place.untouched(database)
        except psycopg.Error:
            return False

    def _new(self, *, keep: bool, ahead: bool) -> Database:
        database = self._copy(ahead)
        name = database.name
        try:
            if self._maintenance.in_place is not None and keep:
                database.shape = self._shape_by(name)
                database.connection = self._maintenance.enter(name)
                self._maintenance.in_place.watch(database)
        except BaseException:
            self._give_up(database)
            raise
        return database

    def _copy(self, ahead: bool) -> Database:
        """A copy that is as it was made: REASSIGN OWNED in one database changes the owner of others, too."""
        for _ in range(self._terms.spares + 2):  # all that were ready, then one made since
            name = self._maintenance.clones.take(self._terms.limit_s, ahead=ahead)
            query = _AS_MADE, {"name": name, "owner": self._maintenance.owner}
            row = self._maintenance.connection.execute(*query).fetchone()
            if row is not None:
                return Database(name, int(row[0]), None)
            self._maintenance.clones.give_up(name)
        raise ServerError(
            "each copy of the template was changed from outside before a test could have it",
            cause="another program on the server changes owners or rights of databases that are not its own",
            remedy="end it, or use a server of your own",
        )

    def _shape_by(self, name: str) -> Shape:
        """What the template looks like, read once, from a copy that no test has used."""
        if self._shape is None:
            with closing(self._maintenance.enter(name)) as connection:
                self._shape = read_shape(connection)
        return self._shape

    def _written(self, database: Database) -> Written | None:
        """What the test wrote, if its sessions end by themselves, and it leaves nothing prepared."""
        if self._maintenance.in_place is None or not database.keep:
            return None
        return self._maintenance.in_place.written_when_alone(database, self._terms.grace_s)

    def _emptied(self, database: Database) -> backends.Inside:
        """Who was left inside; nobody is any more."""
        own = database.own_pid
        grace_s = 0.0 if database.keep else self._terms.grace_s
        found = backends.leave_alone(self._maintenance.connection, database.oid, own, grace_s)
        if not found.nobody:
            prepared = backends.end(self._maintenance.connection, database.oid, own)
            found = found._replace(prepared=prepared)
        return found

    def _put_back(self, database: Database, written: Written | None, prepared: tuple[str, ...]) -> Outcome:
        if self._maintenance.in_place is None or not database.keep:
            return _replaced(
                "each test gets a new one" if self._maintenance.in_place is not None else str(self.strategy)
            )
        for name in prepared:
            database.session.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(name)))
        return self._maintenance.in_place.put_back(database, written)

    @staticmethod
    def _without_strangers(lease: DatabaseLease, found: backends.Inside, outcome: Outcome) -> Outcome:
        """A program that we did not connect may connect again, by the name of the database: that name must go."""
        strangers = [backend for backend in found.backends if lease.opened_at(backend.pid) is None]
        if not strangers or outcome.plan.replace is not None:
            return outcome
        reason = "a session was left in it, and whoever opened it might come back"
        return outcome._replace(plan=outcome.plan._replace(replace=reason))

    def _keep_or_give_up(self, database: Database, outcome: Outcome) -> None:
        if outcome.cluster.stale:
            self._shape = None
        if outcome.plan.replace is None:
            self._idle.append(database)
        else:
            self._give_up(database)

    def _give_up(self, database: Database) -> None:
        database.close()
        self._maintenance.clones.give_up(self._name_now(database))

    def _name_now(self, database: Database) -> str:
        """A test may have renamed its database."""
        with suppress(psycopg.Error):
            query = "SELECT datname FROM pg_database WHERE oid = %s"
            if row := self._maintenance.connection.execute(query, (database.oid,)).fetchone():
                return str(row[0])
        return database.name


def _replaced(reason: str) -> Outcome:
    return Outcome(Plan(replace=reason))
