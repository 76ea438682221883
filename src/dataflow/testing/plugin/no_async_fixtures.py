"""Stand-ins for the asynchronous fixtures when pytest-asyncio is not active: they say so."""

from __future__ import annotations

from typing import NoReturn

import pytest

from dataflow.testing.errors import NoEventLoop


def _unavailable(request: pytest.FixtureRequest) -> NoReturn:
    raise NoEventLoop(
        f"{request.node.nodeid}: {request.fixturename} needs pytest-asyncio, which is not active",
        cause="it was switched off (-p no:asyncio), or plug-ins are not loaded automatically",
        remedy="run without -p no:asyncio, or with -p pytest_asyncio.plugin when plug-in autoload is off",
        option="PYTEST_DISABLE_PLUGIN_AUTOLOAD, -p",
    )


for _name in (
    "tdd_test_context",
    "tdd_parallel_safe",
    "managed_connection",
    "clean_connection",
    "fast_connection_pool",
    "resource_manager",
):
    globals()[_name] = pytest.fixture(name=_name)(lambda request: _unavailable(request))
