"""Code that is written once, for synchronous and for asynchronous connections of psycopg."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def got(value: Any) -> Any:
    """What a method gives, or what its awaitable does."""
    return await value if isawaitable(value) else value


@asynccontextmanager
async def entered(block: Any) -> AsyncIterator[Any]:
    """``with`` or ``async with``."""
    if hasattr(block, "__aenter__"):
        async with block as value:
            yield value
    else:
        with block as value:
            yield value


def without_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run what never has to wait: all connections in it are synchronous."""
    try:
        work.send(None)
    except StopIteration as over:
        value: T = over.value
        return value
    work.close()
    raise AssertionError("it waits for something")
