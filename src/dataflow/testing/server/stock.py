"""The databases of a running server: lease one, make spares, drop the used ones. Runs in the keeper only."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from dataflow.testing.errors import ServerError
from dataflow.testing.server.dropping import drop_database
from dataflow.testing.server.protocol import ADMIN_DATABASE, ADMIN_ROLE, TEST_ROLE, User
from dataflow.testing.server.record import Record, Use

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

SPARES = 2
# No statement of ours waits for longer: a keeper that hangs would hang every run.
STATEMENT_LIMIT_MS = 20_000
_APPLICATION = "dataflow-tdd keeper"

log = logging.getLogger(__name__)


class Administration:
    """Statements as the superuser. The driver is loaded with the first of them: it costs 70 ms."""

    def __init__(self, host: str, port: int, password: str | None, major: int) -> None:
        self._where = {"host": host, "port": port, "user": ADMIN_ROLE, "password": password}
        self._major = major
        self._connection: psycopg.Connection | None = None

    def create(self, name: str) -> None:
        """Make an empty database of the test role and enter it once: the first entry fills a cache that makes
        all later ones faster (3.5 instead of 8 ms)."""
        from psycopg import sql

        strategy = " STRATEGY FILE_COPY" if self._major >= 15 else ""
        self._run(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0" + strategy).format(
                sql.Identifier(name), sql.Identifier(TEST_ROLE)
            )
        )
        self._connect(name).close()

    def drop(self, name: str) -> None:
        drop_database(self._connected(), name, self._connect)

    def exists(self, name: str) -> bool:
        return bool(self.rows("SELECT 1 FROM pg_database WHERE datname = %s", name))

    def visitors(self) -> tuple[User, ...]:
        """Clients other than ourselves, for a server that is entered without leases. A session of ours that was
        closed may need an instant to go."""
        rows = self.rows(
            "SELECT coalesce(application_name, ''), datname, extract(epoch FROM backend_start)::float8, pid"
            " FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND (usename, application_name) <> (%s, %s)",
            ADMIN_ROLE,
            _APPLICATION,
        )
        return tuple(
            User(
                pid=0,
                what=f"{name or 'a client'}, backend {backend}",
                cwd="?",
                since=since,
                database=database,
            )
            for name, database, since, backend in rows
        )

    def rows(self, query: str, *values: object) -> list[tuple[str, str, float, int]]:
        return self._connected().execute(query.encode(), values).fetchall()

    def abandon(self) -> None:
        """Let go of a session that does not answer; somebody may still wait for it."""
        self._connection = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, statement: sql.Composed) -> None:
        self._connected().execute(statement)

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect(ADMIN_DATABASE)
        return self._connection

    def _connect(self, database: str) -> psycopg.Connection:
        try:
            import psycopg
        except ImportError as error:
            raise ServerError(
                "the embedded server's keeper cannot load psycopg",
                cause="the server's programs are there, but not the driver that administers it",
                remedy='pip install "dataflow-tdd[embedded]"',
            ) from error
        options = f"-c statement_timeout={STATEMENT_LIMIT_MS} -c lock_timeout={STATEMENT_LIMIT_MS}"
        return psycopg.connect(
            **self._where,  # type: ignore[arg-type]
            dbname=database,
            autocommit=True,
            connect_timeout=10,
            options=options,
            application_name=_APPLICATION,
        )


class Stock:
    """Leases out databases and does the housekeeping one small step at a time, between requests."""

    def __init__(self, record: Record, administration: Administration, *, spares: int = SPARES) -> None:
        self._record = record
        self._spares = spares
        self.administration = administration
        self._failed: set[str] = set()

    def take(self) -> str:
        """A fresh database. Takes a spare when there is one: no SQL at all."""
        spares = self._record.names(Use.SPARE)
        name = spares[0] if spares else self._make()
        self._record.put(name, Use.LEASED)
        return name

    @property
    def on_lease(self) -> frozenset[str]:
        """Databases that somebody holds or held: whoever is in them belongs to that lease."""
        return frozenset((*self._record.names(Use.LEASED), *self._record.names(Use.DOOMED)))

    def give_back(self, name: str) -> None:
        self._record.put(name, Use.DOOMED)

    def ensure(self, name: str) -> None:
        """A database that stays, unrecorded and therefore never dropped by us."""
        if not self.administration.exists(name):
            self.administration.create(name)

    @property
    def has_spare(self) -> bool:
        """Whoever comes next need not wait."""
        return bool(self._record.names(Use.SPARE))

    def try_again(self) -> None:
        """What failed may work now: the server was started again."""
        self._failed.clear()

    def chore(self) -> Callable[[], None] | None:
        """The next step of housekeeping, or None. What failed once waits for the next start."""
        if not self.has_spare and self._spares and not self._failed:
            return lambda: self._guarded("", lambda _: self._make())
        doomed = [name for name in self._record.names(Use.DOOMED) if name not in self._failed]
        if doomed:
            return lambda: self._guarded(doomed[0], self._drop)
        if len(self._record.names(Use.SPARE)) < self._spares and not self._failed:
            return lambda: self._guarded("", lambda _: self._make())
        return None

    def _make(self) -> str:
        name = f"tdd_{secrets.token_hex(6)}"
        self._record.put(name, Use.MAKING)
        self.administration.create(name)
        self._record.put(name, Use.SPARE)
        return name

    def _drop(self, name: str) -> None:
        self.administration.drop(name)
        self._record.forget(name)

    def _guarded(self, name: str, step: Callable[[str], object]) -> None:
        try:
            step(name)
        except Exception:
            # Housekeeping must not end the keeper under the runs that use it.
            log.exception("housekeeping failed (%s)", name or "a spare")
            self._failed.add(name)
