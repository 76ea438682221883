"""The address of a database as Django's settings say it. Pure, but for the dictionaries that are given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dataflow.testing.dsn import Dsn
from dataflow.testing.template.session import libpq_arguments

# Of OPTIONS, what says where a server is and how it is entered: that of production is not ours. The rest says how
# a session behaves (pool, isolation_level, server_side_binding …), and stays.
_HOW_TO_ENTER = ("ssl", "gss", "krb", "channel_binding", "require", "target_session_attrs", "load_balance_hosts")
_WHERE = frozenset(
    {"service", "servicefile", "passfile", "host", "hostaddr", "port", "user", "password", "dbname"}
)
_KEYS = ("HOST", "PORT", "USER", "PASSWORD", "NAME", "OPTIONS")


def point(settings: dict[str, Any], dsn: Dsn) -> None:
    """Change one of DATABASES, in place: Django's connections of all threads have the same dictionary, and look
    at it when they connect."""
    given = {name: value for name, value in settings.get("OPTIONS", {}).items() if not _leads_elsewhere(name)}
    ours = libpq_arguments(dsn, {})
    for name in _WHERE & ours.keys():
        del ours[name]
    if "options" in ours and "options" in given:
        given["options"] = f"{ours['options']} {given['options']}"
    settings.update(
        HOST=dsn.host,
        PORT=str(dsn.port),
        USER=dsn.user or "",
        PASSWORD=dsn.password or "",
        NAME=dsn.database or "",
        OPTIONS=ours | given,
    )


def kept(settings: dict[str, Any]) -> dict[str, Any]:
    """What `point` changes, for `put_back`."""
    return {key: settings[key] for key in _KEYS if key in settings}


def put_back(settings: dict[str, Any], before: dict[str, Any]) -> None:
    for key in _KEYS:
        settings.pop(key, None)
    settings.update(before)


@contextmanager
def pointed(settings: dict[str, Any], dsn: Dsn) -> Iterator[None]:
    before = kept(settings)
    point(settings, dsn)
    try:
        yield
    finally:
        put_back(settings, before)


def _leads_elsewhere(name: str) -> bool:
    return name in _WHERE or name.startswith(_HOW_TO_ENTER)
