"""Tasks that outlive their test: what they still send never lands between two tests."""

from __future__ import annotations

import asyncio
import contextlib
import random

import asyncpg
import pytest

from dataflow.testing.errors import TDDError

pytestmark = pytest.mark.asyncio
TESTS = 300


async def by_statement(connection):
    return lambda: connection.execute("INSERT INTO item VALUES (77)")


async def by_prepared_statement(connection):
    statement = await connection.prepare("INSERT INTO item VALUES (77)")
    return statement.fetch


async def by_transaction_block(connection):
    async def use():
        async with connection.transaction():
            await connection.execute("INSERT INTO item VALUES (77)")

    return use


async def by_copy(connection):
    return lambda: connection.copy_records_to_table("item", records=[(77,)])


async def go_on(send):
    await asyncio.sleep(random.random() * 0.003)
    for _ in range(1000):
        try:
            return await send()
        except asyncpg.InterfaceError:  # the connection is in use just now
            await asyncio.sleep(0)
        except (TDDError, asyncpg.PostgresError):
            return None


@pytest.mark.parametrize("way", [by_statement, by_prepared_statement, by_transaction_block, by_copy])
async def test_nothing_is_committed_while_a_test_ends(tdd, way):
    tasks = []
    for n in range(TESTS):
        async with tdd.test_context(str(n)) as context:
            tasks.append(asyncio.create_task(go_on(await way(context.connection))))
            with contextlib.suppress(asyncpg.InterfaceError):  # the task may be in the middle of its statement
                await context.connection.fetchval("SELECT 1")
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tdd.ask("SELECT count(*) FROM item") == [(0,)]
