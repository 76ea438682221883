"""Losing against other transactions: the server says so with the same errors, here because we ask it to."""

from __future__ import annotations

import asyncpg
import pytest

from orders import customers
from orders.database import Connection, transact
from orders.errors import Busy


class Registration:
    """Registers Ada, and then loses against another transaction the first few times."""

    def __init__(self, connection: Connection, *, losses: int, error: str = "serialization_failure") -> None:
        self.connection = connection
        self.losses = losses
        self.error = error
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        customer_id = await customers.register(self.connection, "ada@example.org", "Ada")
        if self.calls <= self.losses:
            await self.connection.execute(f"DO $$ BEGIN RAISE '' USING ERRCODE = '{self.error}'; END $$")
        return customer_id


@pytest.mark.parametrize("error", ["serialization_failure", "deadlock_detected"])
@pytest.mark.parametrize("losses", [0, 1, 2])
async def test_work_that_lost_is_done_again(connection: Connection, losses: int, error: str) -> None:
    work = Registration(connection, losses=losses, error=error)
    customer_id = await transact(connection, work, pause_s=0)
    assert work.calls == losses + 1
    # The address would be taken if a lost attempt had left anything behind.
    assert await customers.find(connection, "ada@example.org") == customer_id


async def test_work_that_always_loses_is_given_up(connection: Connection) -> None:
    work = Registration(connection, losses=99)
    with pytest.raises(Busy, match="gave up after 4 attempts"):
        await transact(connection, work, attempts=4, pause_s=0)
    assert work.calls == 4
    assert await customers.find(connection, "ada@example.org") is None


async def test_other_errors_are_not_tried_again(connection: Connection) -> None:
    work = Registration(connection, losses=99, error="division_by_zero")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await transact(connection, work)
    assert work.calls == 1
