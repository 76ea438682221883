"""`debug_performance`: how long a test or helper took, said in one line."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

TARGET_MS = 100.0  # the guide's target for a whole test

_Function = TypeVar("_Function", bound=Callable[..., Any])


def debug_performance(function: _Function) -> _Function:
    """Print the duration of each call in ms, whether it kept the target, and the error if it failed.

    For plain and for ``async def`` functions. A pytest test keeps its signature, so fixtures work.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def measured_async(*args: Any, **kwargs: Any) -> Any:
            with _Line(function.__name__):
                return await function(*args, **kwargs)

        return measured_async  # type: ignore[return-value]

    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        with _Line(function.__name__):
            return function(*args, **kwargs)

    return measured  # type: ignore[return-value]


class _Line:
    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        duration_ms = (perf_counter() - self._started) * 1e3
        sys.stdout.write(performance_line(self._name, duration_ms, error) + "\n")


def performance_line(name: str, duration_ms: float, error: BaseException | None = None) -> str:
    if error is not None:
        said = str(error).partition("\n")[0]
        return f"FAILED {name}: {duration_ms:.2f} ms ({type(error).__name__}{': ' if said else ''}{said})"
    verdict = "ok" if duration_ms < TARGET_MS else "SLOW"
    return f"{verdict} {name}: {duration_ms:.2f} ms (target {TARGET_MS:g} ms)"
