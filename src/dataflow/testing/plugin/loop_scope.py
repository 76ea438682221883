"""Making our asynchronous fixtures run in the event loop of the test that asks for them.

pytest-asyncio fixes a fixture's loop when the fixture is defined; ours must follow the test, since a connection
cannot leave its loop. pytest-asyncio keeps the choice in an attribute of the fixture function, and reads it at
each set-up, so we set it just before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from dataflow.testing.errors import NoEventLoop

_LOOP_SCOPE = "_loop_scope"  # pytest-asyncio's name for it
_FOLLOWS = "_tdd_follows_test_loop"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def follows_test_loop(function: _Function) -> _Function:
    """Mark a fixture function; goes below ``pytest_asyncio.fixture``."""
    setattr(function, _FOLLOWS, True)
    return function


def follow_test_loop(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """If this is one of our fixtures, let it run in the test's loop.

    :raises NoEventLoop: a test that is not asynchronous asked for it by name.
    """
    if not hasattr(fixturedef.func, _FOLLOWS):
        return
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None:
        scope = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
        scope = scope or request.config.getini("asyncio_default_test_loop_scope")
        setattr(fixturedef.func, _LOOP_SCOPE, scope)
    elif fixturedef.argname in _own_arguments(request.node):
        raise NoEventLoop(
            f"{request.node.nodeid}: {fixturedef.argname} needs a test that runs in an event loop",
            cause="the test is a plain function, or is not marked for pytest-asyncio",
            remedy="write `@pytest.mark.asyncio` above `async def`, or set asyncio_mode = auto",
            option="asyncio_mode",
        )
    else:  # an asynchronous fixture of a plain test: there the loop of fixtures is the right one
        setattr(fixturedef.func, _LOOP_SCOPE, None)


def _own_arguments(item: pytest.Item) -> tuple[str, ...]:
    info = getattr(item, "_fixtureinfo", None)
    return info.argnames if info is not None else ()
