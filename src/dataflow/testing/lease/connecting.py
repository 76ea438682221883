"""Sessions that read what a test did, and undo it: values are written and read the same way on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dataflow.testing.dsn import Dsn
from dataflow.testing.template import session

if TYPE_CHECKING:
    import psycopg

# No statement of ours waits for longer; making a clone of a large template takes seconds.
STATEMENT_LIMIT_S = 60.0
_EVENT_TRIGGERS_SINCE = 170_000
# Whatever the server's or the role's defaults are: these are the settings of pg_dump. A commit of ours is in the
# log when it is done, and the session lasts as long as we need it.
_SETTINGS = {
    "search_path": "",
    "idle_session_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
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
    """A session in autocommit with an empty search path: all names are written out.

    :param settings: of PostgreSQL, besides ours.
    :raises ServerError: it cannot be opened, or psycopg is not installed.
    """
    return session.connect(dsn, statement_limit_s=STATEMENT_LIMIT_S, settings=_SETTINGS | dict(settings or {}))
