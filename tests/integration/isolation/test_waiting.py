"""Waiting for a connection: in order, in bounded time, and without losing one."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from dataflow.testing.errors import NoTestConnection, PoolExhausted, StatementTimeout
from dataflow.testing.isolation.context import get_test_context

EXHAUSTED = r"""late: no connection became free within 0.2 s; all 2 are held by:
    - holder one, held for \d+\.\d s, last statement: ALTER ROLE x PASSWORD '\*\*\*'
    - holder two, held for \d+\.\d s, no statement yet
  likely cause: .*
  way out: .*
  option: DATAFLOW_TDD_POOL_SIZE"""


@pytest.mark.asyncio
class TestWaiting:
    async def test_exhaustion_names_the_holders(self, make):
        tdd = make(pool_size=2)
        contexts = [await tdd.begin_test("holder one"), await tdd.begin_test("holder two")]
        with pytest.raises(asyncpg.UndefinedObjectError):
            await contexts[0].connection.execute("ALTER ROLE x PASSWORD 'secret'")
        tdd.wait_only(0.2)
        with pytest.raises(PoolExhausted, match=EXHAUSTED) as told:
            await tdd.begin_test("late")
        assert "secret" not in str(told.value)
        for context in contexts:
            await tdd.end_test(context)
        async with tdd.test_context("afterwards") as context:
            await context.connection.execute("SELECT 1")

    async def test_connections_go_to_those_who_wait_in_their_order(self, make):
        """Also past somebody who asks in the very moment in which one becomes free."""
        tdd = make(pool_size=1)
        order = []

        async def user(name):
            async with tdd.test_context(name):
                order.append(name)
                await asyncio.sleep(0)

        holder = await tdd.begin_test()
        waiting = []
        for n in range(5):
            waiting.append(asyncio.create_task(user(n)))
            await asyncio.sleep(0)
        await tdd.end_test(holder)
        await asyncio.gather(user("late"), *waiting)
        assert order == [0, 1, 2, 3, 4, "late"]

    async def test_giving_up_loses_no_place(self, make):
        """Waiters are cancelled at every moment, also just when it is their turn."""
        tdd = make(pool_size=2)

        async def user():
            async with tdd.test_context() as context:
                await context.connection.execute("SELECT 1")

        for turn in range(40):
            tasks = [asyncio.create_task(user()) for _ in range(6)]
            for _ in range(turn):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            pool = tdd.manager.connection_pool
            assert pool.get_size() == pool.get_idle_size() <= 2
        await asyncio.gather(*(user() for _ in range(10)))
        await tdd.until_backends(2)

    async def test_ten_at_a_time_with_fewer_connections(self, make):
        tdd = make(pool_size=5)
        await tdd.manager.initialize()
        tdd.ask("CREATE TABLE only_one (key int PRIMARY KEY)")

        async def user(n):
            async with tdd.test_context(f"test {n}", metadata={"n": n}) as context:
                assert get_test_context() is context
                await asyncio.sleep(0)
                await context.connection.execute("CREATE TABLE mine (n int)")
                await context.connection.execute("INSERT INTO mine VALUES ($1)", n)
                assert get_test_context().metadata == {"n": n}
                return await context.connection.fetch("SELECT n FROM mine")

        rows = await asyncio.gather(*(user(n) for n in range(10)))
        assert [row[0]["n"] for row in rows] == list(range(10))
        assert get_test_context() is None
        assert tdd.backends() == 5

    async def test_closing_tells_those_who_wait(self, make):
        tdd = make(pool_size=1)
        holder = await tdd.begin_test("holder")
        late = asyncio.create_task(tdd.begin_test("late"))
        await asyncio.sleep(0.01)
        await tdd.close()
        with pytest.raises(NoTestConnection, match="late: the pool was closed while it waited"):
            await asyncio.wait_for(late, 5)
        await tdd.end_test(holder)


async def _iterate(cursor):
    return [row async for row in cursor]


async def _statement(connection, sql):
    return await (await connection.prepare(sql)).fetch()


async def _value(connection, sql):
    return await (await connection.prepare(sql)).fetchval()


async def _cursor(connection, sql):
    return await (await connection.cursor(sql)).fetchrow()


async def _iteration(connection, sql):
    return await _iterate(connection.cursor(sql))


async def _cursor_of_a_statement(connection, sql):
    return await _iterate((await connection.prepare(sql)).cursor())


@pytest.mark.asyncio
@pytest.mark.parametrize("way", [_statement, _value, _cursor, _iteration, _cursor_of_a_statement])
async def test_a_prepared_statement_or_cursor_past_its_limit_says_so(make, way):
    tdd = make()
    async with tdd.test_context("slow", timeout=2.0) as context:
        with pytest.raises(StatementTimeout, match=r"slow: cancelled after .* \(limit 2 s\): SELECT pg_sleep"):
            async with context.connection.transaction():
                await way(context.connection, "SELECT pg_sleep(60)")
