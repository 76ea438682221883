"""Setting up our asynchronous fixtures where pytest-asyncio and anyio would both do it, or anyio alone.

What is given back is no asynchronous function any more, so that neither of them runs it in a loop of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dataflow.testing.errors import NoEventLoop


def for_anyio(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Callable[..., Any]:
    """In the loop that anyio runs the test in, which goes on until the fixture has ended."""
    from anyio.pytest_plugin import extract_backend_and_options, get_runner

    function: Callable[..., Any] = fixturedef.func
    test = request.node.nodeid
    backend, options = extract_backend_and_options(request.getfixturevalue("anyio_backend"))

    def in_its_loop(**arguments: Any) -> Iterator[Any]:
        if backend != "asyncio":
            raise _other_backend(test, fixturedef.argname, backend)
        with get_runner(backend, options) as runner:
            if inspect.isasyncgenfunction(function):
                yield from runner.run_asyncgen_fixture(function, arguments)
            else:
                yield runner.run_fixture(function, arguments)

    return in_its_loop


def for_pytest_asyncio(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Callable[..., Any]:
    """In the loop that pytest-asyncio runs the test in, although it asks for anyio's backend."""
    from pytest_asyncio.plugin import _fixture_synchronizer

    function: Any = fixturedef.func
    runner = request.getfixturevalue(f"_{function._loop_scope}_scoped_runner")
    return _fixture_synchronizer(fixturedef, runner, request)


def _other_backend(test: str, fixture: str, backend: str) -> NoEventLoop:
    return NoEventLoop(
        f"{test}: {fixture} needs asyncio, and anyio runs this test with {backend}",
        cause="asyncpg, which the fixture is for, knows asyncio alone; anyio runs each test with all backends "
        "that are installed, unless it is told which",
        remedy='override the fixture anyio_backend, in a conftest or the module, with one that returns "asyncio"',
    )
