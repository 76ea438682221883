"""Plugin of SQLAlchemy's own tests: its engines find their connections in the sandbox.

The tests make their tables once for a class or a module, and so the transaction is that of the whole run.
"""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.testing.runtime import runtime

_current: list[Any] = []


def _connect(dialect: Any, _record: Any, _arguments: Any, given: dict[str, Any]) -> Any:
    """What an engine of psycopg is given in place of a connection to the server; others connect as ever."""
    if dialect.name != "postgresql" or dialect.driver != "psycopg":
        return None
    if not _current:
        _current.append(runtime().psycopg_tests.begin("the tests of SQLAlchemy"))
    where = {"host", "port", "user", "password", "dbname"}
    return _current[0].connect(**{name: value for name, value in given.items() if name not in where})


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    # Before the library's own plugin opens its first connections, which its engines keep.
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "do_connect", _connect)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    if _current:
        runtime().psycopg_tests.end(_current.pop())
    runtime().release()
