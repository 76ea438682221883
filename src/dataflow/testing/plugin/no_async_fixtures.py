"""Stand-ins for the asynchronous fixtures when neither pytest-asyncio nor anyio is active: they say so."""

from __future__ import annotations

from typing import NoReturn

import pytest

from dataflow.testing.plugin.loop_scope import not_active


def _unavailable(request: pytest.FixtureRequest) -> NoReturn:
    assert request.fixturename is not None
    raise not_active(request.node.nodeid, request.fixturename)


for _name in (
    "tdd_test_context",
    "tdd_parallel_safe",
    "managed_connection",
    "clean_connection",
    "fast_connection_pool",
    "resource_manager",
    "tdd_async_engine",
    "tdd_async_session",
):
    globals()[_name] = pytest.fixture(name=_name)(lambda request: _unavailable(request))
