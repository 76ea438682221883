"""From a server to the databases on it: made at the first need, dropped before the server is given back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow.testing.databases.server import ServerWithDatabases, rollback_dsn

if TYPE_CHECKING:
    from dataflow.testing.databases.of_process import Databases
    from dataflow.testing.databases.proving import Proving
    from dataflow.testing.dsn import Dsn
    from dataflow.testing.events import Emit
    from dataflow.testing.isolation.server_protocol import Server
    from dataflow.testing.lease.lease import DatabaseLease
    from dataflow.testing.proof.escape import Verdict
    from dataflow.testing.proof.horizon import Horizon, Window
    from dataflow.testing.settings import Settings
    from dataflow.testing.template.source import SchemaSource


class Access:
    """The way of one process to its databases.

    :param let_go: closes the connections of rollback tests that nobody holds.
    :ivar root: what relative paths of settings begin at. :ivar schema: how the tables come to be; None: as the
        settings say.
    """

    def __init__(self, settings: Callable[[], Settings], emit: Emit, let_go: Callable[[], None]) -> None:
        self._settings = settings
        self._emit = emit
        self.root = Path.cwd()
        self.schema: SchemaSource | None = None
        self._databases: Databases | None = None
        self._settled = False
        self._let_go = let_go
        self._served: ServerWithDatabases | None = None
        self._proving: Proving | None = None
        self._making = threading.Lock()  # loops in several threads may be the first

    @property
    def source(self) -> SchemaSource:
        """How the tables and seed rows of the tests come to be."""
        if self.schema is not None:
            return self.schema
        from dataflow.testing.template.configured import configured_schema

        return configured_schema(self._settings(), self.root)

    def serve(self, server: Server) -> ServerWithDatabases:
        """The server for rollback tests, with the tables of the schema in a copy that is theirs."""
        self._served = ServerWithDatabases(server, self._rollback_dsn, self.close)
        return self._served

    def judge(self, window: Window, database: str | None = None) -> Verdict:
        """What others committed in the database of the rollback tests while one ran; undone, if it can be.

        :param database: see `Proving.judge`.
        """
        return self._proof.judge(window, database)

    def horizon(self) -> Horizon:
        """What had been committed up to now.

        :raises ServerError: it cannot be asked.
        """
        return self._proof.horizon()

    def excused(self) -> AbstractContextManager[None]:
        """See `Proving.excused`."""
        return self._proof.excused()

    @property
    def _proof(self) -> Proving:
        with self._making:
            if self._proving is None:
                from dataflow.testing.databases.proving import Proving

                self._proving = Proving(lambda: self._served, self.renew, self._let_go)
            return self._proving

    @property
    def settled(self) -> bool:
        """Whether rollback tests have their tables; from then on another schema comes too late for them."""
        return self._settled

    def on(self, server: Server) -> Databases:
        """The databases on a server."""
        with self._making:
            if self._databases is None:
                from dataflow.testing.databases.of_process import Databases

                self._databases = Databases(server.admin_dsn, server.user_dsn, self._settings(), self._emit)
            return self._databases

    def take_back(self, lease: DatabaseLease) -> None:
        """End what a test left in its database, and make that as it was. Idempotent."""
        if self._databases is not None:
            self._databases.take_back(lease)

    def renew(self, name: str) -> bool:
        """Put a fresh copy in the place of a database that is lent; False where that is none of ours.

        :raises ServerError: it is not possible.
        """
        return self._databases is not None and self._databases.renew(name)

    def close(self) -> None:
        """Drop all databases of this process. Idempotent."""
        self._settled, self._served = False, None
        if self._proving is not None:
            self._proving.close()
        databases, self._databases = self._databases, None
        if databases is not None:
            databases.close()

    def forget(self) -> None:
        """In a forked child: they are those of the parent."""
        self._making = threading.Lock()  # a thread of the parent may have it
        self._databases = self._served = None
        self._settled = False
        if self._proving is not None:
            self._proving.forget()

    def _rollback_dsn(self, server: Server) -> Dsn:
        dsn = rollback_dsn(server, self.source, self.on, self._emit)
        self._settled = True
        return dsn
