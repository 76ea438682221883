"""A server together with the databases that a process has on it. Imports no driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from dataflow.testing.errors import CannotCreateDatabase
from dataflow.testing.events import Emit, SchemaLeftOut
from dataflow.testing.template.steps import EMPTY

if TYPE_CHECKING:
    from dataflow.testing.databases.of_process import Databases
    from dataflow.testing.dsn import Dsn
    from dataflow.testing.isolation.server_protocol import Server
    from dataflow.testing.template.source import SchemaSource

ROLLBACK = "the rollback tests of this process"


class ServerWithDatabases:
    """A server whose databases are dropped before it is given back.

    :param rollback_dsn: makes the database of the rollback tests, when the first of them connects.
    """

    def __init__(
        self, server: Server, rollback_dsn: Callable[[Server], Dsn], before_close: Callable[[], None]
    ) -> None:
        self._server = server
        self._rollback_dsn = rollback_dsn
        self._before_close = before_close
        self._making = threading.Lock()  # several loops may be the first
        self._dsn: Dsn | None = None
        self.user_dsn = server.dsn
        self.admin_dsn = server.admin_dsn
        self.description = server.description
        self.attempts = server.attempts
        self.started = server.started

    @property
    def dsn(self) -> Dsn:
        """Where rollback tests connect to.

        :raises SchemaFailed: the schema could not be made. :raises ServerError: the server does not allow it.
        """
        if self._dsn is None:
            with self._making:
                if self._dsn is None:
                    self._dsn = self._rollback_dsn(self._server)
        return self._dsn

    @property
    def alive(self) -> bool:
        return self._server.alive

    @property
    def restarts(self) -> int:
        return self._server.restarts

    def close(self) -> None:
        try:
            self._before_close()
        finally:
            self._server.close()


def rollback_dsn(
    server: Server, source: SchemaSource, databases: Callable[[Server], Databases], emit: Emit
) -> Dsn:
    """Where rollback tests connect to: a copy of the template that is theirs alone, if there is a template.

    Without the right to make copies it is the database of the URL, as it is, which `emit` is told.
    """
    if source is EMPTY:
        return server.dsn
    try:
        return databases(server).lend(source, ROLLBACK, fresh=True, ahead=False).dsn
    except CannotCreateDatabase as error:
        emit(SchemaLeftOut(source.describe(), server.dsn.database or "", error.what))
        return server.dsn
