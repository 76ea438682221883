"""A server that somebody else runs: the guide's address, a probe without a driver, and the guard."""

from __future__ import annotations

import re
import socket

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import NotATestDatabase
from dataflow.testing.server.protocol import TEST_DATABASE, TEST_PASSWORD, TEST_ROLE

GUIDE_DSN = Dsn("localhost", 5433, TEST_ROLE, TEST_PASSWORD, TEST_DATABASE)

_TEST_WORDS = frozenset({"test", "tests", "testing", "tdd"})
_SEPARATORS = re.compile(r"[_\-.\d]+")


def answers(dsn: Dsn, timeout_s: float = 0.5) -> str | None:
    """None when something listens at `dsn`; else the reason why not, such as "connection refused".

    It costs 0.1 ms on this machine and `timeout_s` (seconds) at most on the network; it does not log in.
    """
    try:
        _connect(dsn, timeout_s).close()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def check_test_database(dsn: Dsn, allowed: frozenset[str]) -> None:
    """The guard: refuse a database that may be a real one, before anything is written to it. No I/O.

    A name is one of a test database when a word of it is: `app_test`, `tdd-1`, `tests.shop`; not `latest`.

    :param allowed: names that the user vouches for.
    :raises NotATestDatabase: neither the name nor the user says that it is for tests.
    """
    if dsn.database and (dsn.database in allowed or looks_like_tests(dsn.database)):
        return
    named = f"the database {dsn.database!r} at {dsn.where}" if dsn.database else f"{dsn}"
    raise NotATestDatabase(
        f"{named} is refused: {'its name does' if dsn.database else 'it names no database, which does'} not "
        "say that it is for tests",
        cause="the URL points to a database for development or production, and tests would change its data",
        remedy="use a database with 'test' as a word of its name, such as app_test; or allow this one by name",
        option=f"DATAFLOW_TDD_ALLOW_DATABASE={dsn.database or '<name>'}, or --tdd-allow-database",
    )


def looks_like_tests(name: str) -> bool:
    return not _TEST_WORDS.isdisjoint(_SEPARATORS.split(name.lower()))


def _connect(dsn: Dsn, timeout_s: float) -> socket.socket:
    if not dsn.on_unix_socket:
        return socket.create_connection((dsn.host, dsn.port), timeout_s)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(f"{dsn.host}/.s.PGSQL.{dsn.port}")
    except OSError:
        connection.close()
        raise
    return connection
