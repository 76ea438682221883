"""Making our asynchronous fixtures run in the event loop of the test that asks for them.

pytest-asyncio fixes a fixture's loop when the fixture is defined; ours must follow the test, since a connection
cannot leave its loop. pytest-asyncio keeps the choice in an attribute of the fixture function, and reads it at
each set-up, so we set it just before. anyio has one loop at a time, and runs the fixtures of whichever test asks
for its backend; it takes them before or after pytest-asyncio does, as the two happen to be loaded: so we decide.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from dataflow.testing.errors import NoEventLoop
from dataflow.testing.plugin import PYTEST_ASYNCIO

_LOOP_SCOPE = "_loop_scope"  # pytest-asyncio's name for it
_FOLLOWS = "_tdd_follows_test_loop"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def follows_test_loop(function: _Function) -> _Function:
    """Mark a fixture function; goes below ``pytest_asyncio.fixture``."""
    setattr(function, _FOLLOWS, True)
    return function


@contextmanager
def following_test_loop(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Iterator[None]:
    """While one of our fixtures is set up: it runs in the loop of the test, now and at its end."""
    function = fixturedef.func
    by_pytest_asyncio = is_run_by_pytest_asyncio(request.node)
    setattr(function, _LOOP_SCOPE, _scope_of_test(request) if by_pytest_asyncio else None)
    if "anyio_backend" in request.node.fixturenames:
        # Both take what is asynchronous; we leave them nothing that is.
        from dataflow.testing.plugin import two_plugins

        wrap = two_plugins.for_pytest_asyncio if by_pytest_asyncio else two_plugins.for_anyio
        fixturedef.func = wrap(fixturedef, request)  # type: ignore[misc]
    elif not by_pytest_asyncio and not request.config.stash[PYTEST_ASYNCIO]:
        raise not_active(request.node.nodeid, fixturedef.argname)
    try:
        yield
    finally:
        fixturedef.func = function  # type: ignore[misc]


def is_ours(fixturedef: pytest.FixtureDef[Any]) -> bool:
    """Whether this is one of our asynchronous fixtures."""
    return hasattr(fixturedef.func, _FOLLOWS)


def is_run_by_pytest_asyncio(item: pytest.Item) -> bool:
    return item.get_closest_marker("asyncio") is not None and item.config.stash[PYTEST_ASYNCIO]


def _scope_of_test(request: pytest.FixtureRequest) -> str:
    marker = request.node.get_closest_marker("asyncio")
    scope = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
    return str(scope or request.config.getini("asyncio_default_test_loop_scope"))


def check_has_loop(item: pytest.Item) -> None:
    """Refuse a test that asks for one of our asynchronous fixtures, and has no event loop.

    Autouse fixtures that ask for one are the project's own affair.

    :raises NoEventLoop: says which fixture.
    """
    info = getattr(item, "_fixtureinfo", None)
    if info is None or is_run_by_pytest_asyncio(item) or _is_run_by_anyio(item):
        return
    for name in _asked_for(info):
        if _is_ours(info, name):
            raise _without_loop(item, name)


def _is_run_by_anyio(item: pytest.Item) -> bool:
    if "anyio_backend" not in item.fixturenames:  # type: ignore[attr-defined]
        return False
    function = item.obj  # type: ignore[attr-defined]
    given = getattr(function, "hypothesis", None)
    return inspect.iscoroutinefunction(function if given is None else given.inner_test)


def _without_loop(item: pytest.Item, fixture: str) -> NoEventLoop:
    if not item.config.stash[PYTEST_ASYNCIO]:
        return not_active(item.nodeid, fixture)
    return NoEventLoop(
        f"{item.nodeid}: {fixture} needs a test that runs in an event loop",
        cause="the test is a plain function, or is not marked for pytest-asyncio or anyio",
        remedy="write `@pytest.mark.asyncio` above `async def`, or set asyncio_mode = auto; with anyio, "
        "`@pytest.mark.anyio`; a plain test takes tdd_psycopg, or tdd_database by its url",
        option="asyncio_mode, anyio_mode",
    )


def not_active(test: str, fixture: str) -> NoEventLoop:
    """:param test: which asked for it."""
    return NoEventLoop(
        f"{test}: {fixture} needs pytest-asyncio, which is not active, or anyio's marker",
        cause="it was switched off (-p no:asyncio), or plug-ins are not loaded automatically",
        remedy="run without -p no:asyncio, or with -p pytest_asyncio.plugin when plug-in autoload is off; "
        "or mark the test `@pytest.mark.anyio`",
        option="PYTEST_DISABLE_PLUGIN_AUTOLOAD, -p",
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
