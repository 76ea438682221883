"""Making our asynchronous fixtures run in the event loop of the test that asks for them.

pytest-asyncio fixes a fixture's loop when the fixture is defined; ours must follow the test, since a connection
cannot leave its loop. pytest-asyncio keeps the choice in an attribute of the fixture function, and reads it at
each set-up, so we set it just before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
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


def follow_test_loop(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> bool:
    """If this is one of our fixtures, let it run in the test's loop; returns whether it is."""
    if not hasattr(fixturedef.func, _FOLLOWS):
        return False
    marker = request.node.get_closest_marker("asyncio")
    if marker is None:  # an asynchronous fixture of a plain test: the loop of fixtures is the right one
        scope = None
    else:
        scope = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
        scope = scope or request.config.getini("asyncio_default_test_loop_scope")
    setattr(fixturedef.func, _LOOP_SCOPE, scope)
    return True


def check_has_loop(item: pytest.Item) -> None:
    """Refuse a test that asks for one of our asynchronous fixtures, and has no event loop.

    Autouse fixtures that ask for one are the project's own affair.

    :raises NoEventLoop: says which fixture.
    """
    info = getattr(item, "_fixtureinfo", None)
    if info is None or item.get_closest_marker("asyncio") is not None:
        return
    for name in _asked_for(info):
        if _is_ours(info, name):
            raise NoEventLoop(
                f"{item.nodeid}: {name} needs a test that runs in an event loop",
                cause="the test is a plain function, or is not marked for pytest-asyncio",
                remedy="write `@pytest.mark.asyncio` above `async def`, or set asyncio_mode = auto; "
                "a plain test takes tdd_database, by its url",
                option="asyncio_mode",
            )


def _asked_for(info: Any) -> Iterator[str]:
    """The fixtures that a test names, and those that these name. What an asynchronous one of the project asks for
    is used in the event loop of that one."""
    seen: set[str] = set()
    waiting = list(info.argnames)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            yield name
            found = info.name2fixturedefs.get(name)
            if found and not _is_asynchronous(found[-1].func):
                waiting += found[-1].argnames


def _is_asynchronous(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _is_ours(info: Any, name: str) -> bool:
    """Whether it is one of our asynchronous fixtures, and not one of the project by the same name."""
    found = info.name2fixturedefs.get(name)
    return bool(found) and hasattr(found[-1].func, _FOLLOWS)
