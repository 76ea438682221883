"""Exclusive use of named resources."""

from __future__ import annotations

import asyncio

import pytest

from dataflow.testing.errors import ResourceError
from dataflow.testing.recipes.resources import TDDResourceManager


def test_one_holder_at_a_time_among_many_tasks() -> None:
    async def run() -> None:
        manager = TDDResourceManager()
        assert sum(await asyncio.gather(*(manager.allocate("port") for _ in range(50)))) == 1
        assert manager.allocated_resources == {"port"}
        await manager.release("port")
        assert await manager.allocate("port")

    asyncio.run(run())


def test_release_calls_back_once_also_asynchronously_and_is_idempotent() -> None:
    async def run() -> list[str]:
        calls: list[str] = []

        async def later() -> None:
            calls.append("later")

        manager = TDDResourceManager()
        await manager.allocate("a", lambda: calls.append("now"))
        await manager.allocate("b", later)
        for name in ("a", "a", "b", "never had"):
            await manager.release(name)
        return calls

    assert asyncio.run(run()) == ["now", "later"]


def test_all_are_released_the_last_first_also_when_some_fail() -> None:
    async def run() -> list[str]:
        order: list[str] = []

        def failing(name: str) -> None:
            order.append(name)
            raise OSError(f"{name} is stuck")

        manager = TDDResourceManager()
        await manager.allocate("first", lambda: failing("first"))
        await manager.allocate("second", lambda: order.append("second"))
        await manager.allocate("third", lambda: failing("third"))
        with pytest.raises(ResourceError) as caught:
            await manager.release_all()
        assert "third: OSError: third is stuck; first: OSError: first is stuck" in str(caught.value)
        assert manager.allocated_resources == frozenset()
        await manager.release_all()
        return order

    assert asyncio.run(run()) == ["third", "second", "first"]
