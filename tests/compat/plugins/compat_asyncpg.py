"""Plugin of asyncpg's own tests: each finds its connections in the sandbox, all in one transaction.

`asyncpg._testbase` is what all of them are built on; where it opens connections is replaced.
"""

from __future__ import annotations

from typing import Any

import pytest
from asyncpg import _testbase

from dataflow.testing.runtime import runtime

# With one of these a test wants to enter the server in a certain way.
_ANOTHER_WAY = frozenset({"host", "port", "user", "password", "database", "dsn", "ssl", "passfile", "krbsrvname"})

_entered_plainly = _testbase.ClusterTestCase.__dict__["connect"].__func__
_set_up = _testbase.ClusterTestCase.setUp
_tear_down = _testbase.ClusterTestCase.tearDown
_current: list[Any] = []


async def _open(*_where: Any, **arguments: Any) -> Any:
    arguments.pop("loop", None)
    return await _current[-1].connect(**arguments)


def _connect(cls: Any, **arguments: Any) -> Any:
    if not _current or _ANOTHER_WAY & arguments.keys():
        return _entered_plainly(cls, **arguments)
    return _open(**arguments)


def _create_pool(self: Any, pool_class: Any = None, connection_class: Any = None, **arguments: Any) -> Any:
    if not _ANOTHER_WAY & arguments.keys():
        arguments.setdefault("connect", _open)
    else:
        arguments = self.get_connection_spec(arguments)
    chosen = {"pool_class": pool_class, "connection_class": connection_class}
    given = {name: value for name, value in chosen.items() if value is not None}
    pool = _testbase.create_pool(loop=self.loop, **given, **arguments)
    self._pools.append(pool)
    return pool


def _begin(self: Any) -> None:
    _set_up(self)
    _current.append(self.loop.run_until_complete(runtime().begin_test(self.id())))


def _end(self: Any) -> None:
    try:
        _tear_down(self)
    finally:
        self.loop.run_until_complete(runtime().end_test(_current.pop()))


@pytest.hookimpl
def pytest_configure() -> None:
    _testbase.ClusterTestCase.connect = classmethod(_connect)
    _testbase.ClusterTestCase.create_pool = _create_pool
    _testbase.ClusterTestCase.setUp = _begin
    _testbase.ClusterTestCase.tearDown = _end


@pytest.hookimpl
def pytest_unconfigure() -> None:
    runtime().release()
