"""`debug_performance`: one line per call."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from dataflow.testing.recipes.performance import debug_performance, performance_line


def test_a_plain_function(capsys: pytest.CaptureFixture[str]) -> None:
    @debug_performance
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert add(1, b=2) == 3
    assert capsys.readouterr().out.startswith("ok add: ")
    assert add.__doc__ == "Adds."
    assert list(inspect.signature(add).parameters) == ["a", "b"]


def test_an_async_function_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    @debug_performance
    async def add(a: int) -> int:
        await asyncio.sleep(0)
        return a + 1

    assert inspect.iscoroutinefunction(add)
    assert (add.__name__, list(inspect.signature(add).parameters)) == ("add", ["a"])
    assert asyncio.run(add(1)) == 2
    assert capsys.readouterr().out.startswith("ok add: ")


def test_a_failure_is_printed_and_raised(capsys: pytest.CaptureFixture[str]) -> None:
    @debug_performance
    async def fail() -> None:
        raise ValueError("first line\nsecond line")

    with pytest.raises(ValueError, match="second line"):
        asyncio.run(fail())
    out = capsys.readouterr().out
    assert out.startswith("FAILED fail: ")
    assert out.endswith(" ms (ValueError: first line)\n")


@pytest.mark.parametrize(
    ("duration", "error", "line"),
    [
        (99.994, None, "ok x: 99.99 ms (target 100 ms)"),
        (100.0, None, "SLOW x: 100.00 ms (target 100 ms)"),
        (1.0, KeyboardInterrupt(), "FAILED x: 1.00 ms (KeyboardInterrupt)"),
    ],
)
def test_the_words(duration: float, error: BaseException | None, line: str) -> None:
    assert performance_line("x", duration, error) == line
