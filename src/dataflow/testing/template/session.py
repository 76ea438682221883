"""Sessions with psycopg: opening one, bounding it in time, and saying in words what went wrong.

Synchronous on purpose: administration must work with and without an event loop. psycopg is loaded when a
session is opened, not before.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError, ServerUnreachable
from dataflow.testing.masking import mask

if TYPE_CHECKING:
    import psycopg

CONNECT_LIMIT_S = 10
# So much longer than the server may take for a statement we wait for its answer.
_ANSWER_GRACE_S = 5.0
_CANCEL_LIMIT_S = 5.0
# NAMEDATALEN - 1: what the server keeps of an application's name, in bytes.
_NAME_LENGTH = 63


def connect(
    dsn: Dsn, *, statement_limit_s: float = 0.0, settings: Mapping[str, object] | None = None
) -> psycopg.Connection:
    """A session in autocommit; the caller closes it. Others see in pg_stat_activity which process has it.

    :param statement_limit_s: seconds that a statement may take, waiting for locks included; 0: as long as it
        wants, whatever the role's or database's settings say.
    :param settings: of PostgreSQL, for this session.
    :raises ServerError: it cannot be opened.
    """
    try:
        import psycopg
    except ImportError as error:
        raise ServerError(
            "databases for tests need psycopg, which cannot be loaded",
            cause="it is not installed: only the extra 'embedded' brings it along",
            remedy='pip install "psycopg[binary]", or pip install "dataflow-tdd[embedded]"',
        ) from error
    limit_ms = int(statement_limit_s * 1000)
    limits = {"statement_timeout": limit_ms, "lock_timeout": limit_ms, "idle_in_transaction_session_timeout": 0}
    ours = limits | dict(settings or {})
    from dataflow.testing.template.patience import ImpatientConnection

    try:
        connection = ImpatientConnection.connect(
            # Also where PGCLIENTENCODING says something else: files of SQL are sent as they are.
            **(libpq_arguments(dsn, ours) | {"application_name": this_process(), "client_encoding": "UTF8"}),
            autocommit=True,
            # Statements are sent as they are: some cannot be prepared, and most run once.
            prepare_threshold=None,
        )
    except psycopg.Error as error:
        # The frames of the driver show the password.
        raise _unreachable(dsn, error) from None
    connection.answer_limit_s = statement_limit_s + _ANSWER_GRACE_S if statement_limit_s else 0.0
    return connection


def libpq_arguments(dsn: Dsn, settings: Mapping[str, object]) -> dict[str, Any]:
    """What libpq wants for `dsn`: parameters that it does not know are settings of the session, as they are for
    asyncpg. `settings` win over them."""
    from psycopg.pq import Conninfo

    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    given = dict(dsn.parameters)
    session = {name: value for name, value in given.items() if name not in known} | dict(settings)
    options = [given.pop("options", ""), *(f"-c {name}={_escaped(value)}" for name, value in session.items())]
    parts = {
        "connect_timeout": CONNECT_LIMIT_S,
        **{name: value for name, value in given.items() if name in known},
        "host": dsn.host,
        "port": dsn.port,
        "user": dsn.user,
        "password": dsn.password,
        "dbname": dsn.database,
        "options": " ".join(filter(None, options)) or None,
    }
    return {name: value for name, value in parts.items() if value is not None}


def this_process() -> str:
    """Who we are, for others who wait for us: process, host and command, in what the server keeps of a name."""
    command = Path(sys.argv[0] or sys.executable)
    name = command.parent.name if command.name == "__main__.py" else command.name
    text = " ".join([f"dataflow-tdd {os.getpid()}@{socket.gethostname()[:20]}", name, *sys.argv[1:]])
    return mask(text).encode("ascii", "replace").decode()[:_NAME_LENGTH]


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """What the server refuses of our own statements becomes a ServerError. :param doing: as in "drop x"."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise ServerError(f"the server would not {doing}: {first_words(error)}") from error


def first_words(error: psycopg.Error) -> str:
    """The server's message; what the driver said where there is none."""
    return error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__


class TimeLimit:
    """While entered, a connection has `limit_s` seconds in all; then its statement is cancelled and it is cut
    off, so that whoever waits for it gets an error. The user's SQL cannot lift this limit as it can lift
    `statement_timeout` (pg_dump's output does).

    :ivar expired: the time was over.
    """

    def __init__(self, connection: psycopg.Connection, limit_s: float) -> None:
        self._connection = connection
        self._timer = threading.Timer(limit_s, self._cut_off)
        self._timer.daemon = True
        self.expired = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._timer.join()  # the connection must not be closed under it

    def _cut_off(self) -> None:
        self.expired = True
        with suppress(Exception):
            self._connection.cancel_safe(timeout=_CANCEL_LIMIT_S)
        hang_up(self._connection)


def hang_up(connection: psycopg.Connection) -> None:
    """Cut a connection off, from whichever thread: reads and writes on it fail from now on."""
    with suppress(Exception), socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)


def is_alive(connection: psycopg.Connection) -> bool:
    """Whether the session is still there. Costs microseconds as long as the server has not said anything."""
    import psycopg

    if connection.closed:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(connection.pgconn.socket, selectors.EVENT_READ)
        if not selector.select(0):
            return True
    try:
        connection.execute("SELECT")  # it was a notice, or the end of the line
    except psycopg.Error:
        return False
    return True


def forget(connection: psycopg.Connection) -> None:
    """Close a connection that a forked child inherited, without a word to the server: its parent uses it."""
    with Path(os.devnull).open("r+b") as nowhere:
        os.dup2(nowhere.fileno(), connection.pgconn.socket)
    connection.close()


def _unreachable(dsn: Dsn, error: psycopg.Error) -> ServerUnreachable:
    said = mask(" ".join(str(error).split()), dsn.password) or type(error).__name__
    return ServerUnreachable(
        f"no connection to {dsn}: {said}",
        cause="the server is not running or not reachable, or it does not let this user in",
        remedy="try `dataflow-tdd doctor`",
        option="TEST_DATABASE_URL; leave it unset for the embedded server",
    )


def _escaped(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace(" ", "\\ ")
