"""`DatabaseLease`: a database that belongs to one test, which may commit in it as it likes."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from dataflow.testing.dsn import Dsn, SecretUrl
from dataflow.testing.errors import StaleContext
from dataflow.testing.lease.opening import Opening
from dataflow.testing.template.session import libpq_arguments

if TYPE_CHECKING:
    import asyncpg
    import psycopg


class DatabaseLease:
    """A test's right to a database until the test is over.

    Any number of connections, processes and drivers may use it. Whoever is still inside at the end is ended.

    :ivar test_id: whose it is. :ivar name: of the database.
    """

    def __init__(self, test_id: str, dsn: Dsn) -> None:
        self.test_id = test_id
        self.name = dsn.database or ""
        self._dsn = dsn
        self._over = False
        self._opened: dict[int, str] = {}
        self._since = monotonic()

    @property
    def dsn(self) -> Dsn:
        """The address as a value.

        :raises StaleContext: the test is over.
        """
        if self._over:
            raise StaleContext(
                f"the database of {self.test_id} was given back",
                cause="the lease was kept in a global, a wider fixture or a task that outlived the test",
                remedy="take tdd_database in the test or fixture that needs it",
            )
        return self._dsn

    @property
    def url(self) -> str:
        """``postgresql://…``, as psycopg, asyncpg and most programs take it; with its password, if it has one,
        which its `repr` does not show.

        :raises StaleContext: the test is over.
        """
        return SecretUrl(self.dsn.url())

    @property
    def asyncpg_url(self) -> str:
        """The same as `url`."""
        return self.url

    @property
    def psycopg_url(self) -> str:
        """The same as `url`."""
        return self.url

    def sqlalchemy_url(self, driver: str = "asyncpg") -> str:
        """``postgresql+driver://…``, for `create_engine` and `create_async_engine`."""
        return SecretUrl(self.dsn.url(scheme=f"postgresql+{driver}"))

    @property
    def host(self) -> str:
        """A host, or the directory of a UNIX socket."""
        return self.dsn.host

    @property
    def port(self) -> int:
        return self.dsn.port

    @property
    def user(self) -> str | None:
        return self.dsn.user

    @property
    def password(self) -> str | None:
        return self.dsn.password

    def connect(self, **arguments: Any) -> Opening:
        """A connection of asyncpg; what it writes stays until the test is over.

        ``async with lease.connect() as connection:`` closes it; who writes ``await lease.connect()`` has to.

        :param arguments: for `asyncpg.connect`, such as ``timeout`` (seconds).
        """
        where = _caller()
        parameters = self.dsn.asyncpg_arguments() | arguments

        async def opened() -> asyncpg.Connection:
            import asyncpg

            connection: asyncpg.Connection = await asyncpg.connect(**parameters)
            self._opened[connection.get_server_pid()] = where
            return connection

        return Opening(opened)

    def connect_psycopg(self, conninfo: str = "", **arguments: Any) -> psycopg.Connection:
        """A connection of psycopg, which begins a transaction by itself unless ``autocommit=True``.

        Close it, as ``with lease.connect_psycopg() as connection:`` does, which also commits.
        """
        import psycopg

        where = _caller()
        connection: psycopg.Connection = psycopg.connect(conninfo, **(libpq_arguments(self.dsn, {}) | arguments))
        self._opened[connection.info.backend_pid] = where
        return connection

    def note_opened(self, pid: int, where: str) -> None:
        """Another way than `connect` opened a session in it. :param where: the source line."""
        self._opened[pid] = where

    def opened_at(self, pid: int) -> str | None:
        """The source line that opened the session of this process id, if it was opened here."""
        return self._opened.get(pid)

    @property
    def age_s(self) -> float:
        """Seconds since the test got it."""
        return monotonic() - self._since

    def end(self) -> None:
        """From now on nobody gets its address any more."""
        self._over = True

    def __repr__(self) -> str:
        return f"<DatabaseLease {self.name} of {self.test_id}{', over' if self._over else ''}>"


def _caller() -> str:
    """File and line of whoever called the function that calls this."""
    frame = sys._getframe(2)
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
