"""Connections of our own for administration: synchronous, so that they need no event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError, ServerUnreachable
from dataflow.testing.masking import mask

if TYPE_CHECKING:
    import psycopg

# No statement of ours waits for longer (ms); making a clone of a large template takes seconds.
STATEMENT_LIMIT_MS = 60_000
_CONNECT_LIMIT_S = 10
_EVENT_TRIGGERS_SINCE = 170_000
APPLICATION = "dataflow-tdd administration"
# Values are written and read as here, whatever the server's or the role's defaults are: these are the settings of
# pg_dump. A commit of ours is in the log when it is done, and the connection lasts as long as we need it.
_SETTINGS = {
    "search_path": "",
    "statement_timeout": str(STATEMENT_LIMIT_MS),
    "lock_timeout": str(STATEMENT_LIMIT_MS),
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read\\ committed",
    "synchronous_commit": "on",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "xmloption": "content",
}


def silent_settings(server_version: int) -> dict[str, str]:
    """Settings of a superuser for whom triggers do not fire, those on foreign keys included, nor rules."""
    settings = {"session_replication_role": "replica"}
    if server_version >= _EVENT_TRIGGERS_SINCE:  # since then they fire for who comes in, too
        settings["event_triggers"] = "off"
    return settings


def connect(dsn: Dsn, settings: Mapping[str, str] | None = None) -> psycopg.Connection:
    """A connection in autocommit mode with an empty search path: all names are written out.

    :param settings: of PostgreSQL, besides ours.
    :raises ServerError: it cannot be opened, or psycopg is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise ServerError(
            "databases for tests need psycopg, which is not installed",
            remedy='pip install "dataflow-tdd[embedded]", or pip install "psycopg[binary]"',
        ) from error
    ours = " ".join(f"-c {name}={value}" for name, value in (_SETTINGS | dict(settings or {})).items())
    given: dict[str, Any] = dict(dsn.parameters)
    given |= {
        "host": dsn.host,
        "port": dsn.port,
        "user": dsn.user,
        "password": dsn.password,
        "dbname": dsn.database,
        "connect_timeout": _CONNECT_LIMIT_S,
        "options": f"{given.get('options', '')} {ours}".strip(),
        "client_encoding": "UTF8",
        "application_name": APPLICATION,
    }
    try:
        return psycopg.connect(autocommit=True, **given)
    except psycopg.Error as error:
        raise ServerUnreachable(
            f"no connection to {dsn}: {mask(str(error), dsn.password)}",
            cause="the server went away, or has no connection left",
            remedy="see `dataflow-tdd doctor`",
        ) from None
