"""The dispatcher as it runs in production: a process of its own, which is woken by what others commit."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from orders import checkout

from .factories import a_paid_order, a_placed_order

ROOT = Path(__file__).parents[1]
LIMIT_S = 20.0


class Dispatcher:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def sent(self, count: int) -> list[dict[str, Any]]:
        """The next messages that went out."""
        assert self._process.stdout is not None
        lines = [await asyncio.wait_for(self._process.stdout.readline(), LIMIT_S) for _ in range(count)]
        return [json.loads(line) for line in lines]

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        assert await asyncio.wait_for(self._process.wait(), LIMIT_S) == 0


@pytest.fixture
async def dispatcher(shop: asyncpg.Pool) -> AsyncIterator[Dispatcher]:
    """It finds its database in DATABASE_URL, which `tdd_database_env` in pyproject.toml asks for."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orders.dispatcher", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    dispatcher = Dispatcher(process)
    yield dispatcher
    await dispatcher.stop()


async def test_an_order_is_announced_when_it_is_committed(shop: asyncpg.Pool, dispatcher: Dispatcher) -> None:
    async with shop.acquire() as connection:
        order = await a_paid_order(connection, {"HOUSE": 1})
        await checkout.collect_order(connection, order.pickup_code)
    topics = ["order.placed", "order.paid", "order.collected"]
    sent = await dispatcher.sent(3)
    assert [message["topic"] for message in sent] == topics
    assert {message["number"] for message in sent} == {order.number}
    await dispatcher.stop()
    assert await shop.fetchval("SELECT count(*) FROM outbox WHERE sent_at IS NULL") == 0


async def test_what_was_committed_while_nobody_listened_is_sent_too(shop: asyncpg.Pool) -> None:
    async with shop.acquire() as connection:
        order = await a_placed_order(connection, {"HOUSE": 1})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orders.dispatcher", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    dispatcher = Dispatcher(process)
    assert [message["number"] for message in await dispatcher.sent(1)] == [order.number]
    await dispatcher.stop()
