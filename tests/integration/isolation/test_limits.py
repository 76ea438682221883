"""How long a statement may take, on whatever connection of a test it runs; the connection goes on behind it."""

from __future__ import annotations

import asyncio
from time import monotonic

import psycopg
import pytest

from dataflow.testing.errors import StatementTimeout

pytestmark = pytest.mark.asyncio

SLEEP = "SELECT pg_sleep(30)"
TOLD = r"cancelled after 1.* SELECT pg_sleep\(30\)\n.*cause: a slow query(.|\n)*--tdd-timeout"


def _on_one(context):
    return context.connection


async def _on_another(context):
    return await context.connect()


def _on_a_pool(context):
    return context.pool


@pytest.mark.parametrize("way", [_on_one, _on_another, _on_a_pool])
@pytest.mark.parametrize("method", ["execute", "fetch", "fetchrow", "fetchval"])
async def test_asyncpg(make, way, method):
    async with make(timeout=1).test_context("slow") as context:
        connection = way(context)
        if asyncio.iscoroutine(connection):
            connection = await connection
        started = monotonic()
        with pytest.raises(StatementTimeout, match=TOLD):
            await getattr(connection, method)(SLEEP)
        assert monotonic() - started < 8
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_limit_of_the_call_goes_before_it(make):
    async with make(timeout=1).test_context("slow") as context:
        assert await context.pool.fetchval("SELECT 1 FROM pg_sleep(1.5)", timeout=20) == 1
        other = await context.connect(command_timeout=20)
        assert await other.fetchval("SELECT 1 FROM pg_sleep(1.5)") == 1
        with pytest.raises(StatementTimeout, match=r"limit 0\.2 s"):
            await other.execute(SLEEP, timeout=0.2)


async def test_that_of_the_context_does(make):
    runtime = make(timeout=30)
    context = await runtime.begin_test("slow", timeout=0.5)
    try:
        with pytest.raises(StatementTimeout, match=r"limit 0\.5 s"):
            await context.pool.execute(SLEEP)
        connection = await context.connect_psycopg(autocommit=True)
        with pytest.raises(psycopg.errors.QueryCanceled, match=r"cancelled after 0\.5 s"):
            await connection.execute(SLEEP)
    finally:
        await runtime.end_test(context)


async def test_psycopg_in_a_loop(make):
    async with make(timeout=1).test_context("slow") as context:
        connection = await context.connect_psycopg(autocommit=True)
        with pytest.raises(psycopg.errors.QueryCanceled, match=TOLD):
            await connection.execute(SLEEP)
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
        async with context.psycopg_pool.connection() as pooled:
            with pytest.raises(psycopg.errors.QueryCanceled, match=TOLD):
                await pooled.execute(SLEEP)
            await pooled.rollback()
            assert await (await pooled.execute("SELECT 1")).fetchone() == (1,)
        assert [each async for each in connection.notifies(timeout=1.5)] == []
        assert await context.connection.fetchval("SELECT 1") == 1


async def test_psycopg(make):
    runtime = make(timeout=1)
    await runtime.manager.initialize()
    context = runtime.psycopg_tests.begin("slow")
    with pytest.raises(psycopg.errors.QueryCanceled, match=TOLD):
        context.connection.execute(SLEEP)
    context.connection.rollback()
    assert context.connection.execute("SELECT 1").fetchone() == (1,)
    context.connection.commit()
    with context.psycopg_pool.connection() as pooled, pytest.raises(psycopg.errors.QueryCanceled, match=TOLD):
        pooled.execute(SLEEP)
    runtime.psycopg_tests.end(context)
    again = runtime.psycopg_tests.begin("next")
    assert again.connection.execute("SELECT 1").fetchone() == (1,)
    runtime.psycopg_tests.end(again)


async def test_one_that_somebody_else_cancels_is_told_as_it_is(make):
    runtime = make(timeout=30)
    async with runtime.test_context("cancelled") as context:
        connection = await context.connect_psycopg(autocommit=True)
        sleeping = asyncio.create_task(connection.execute(SLEEP))
        await asyncio.sleep(0.2)
        runtime.ask(f"SELECT pg_cancel_backend({context.connection.backend_pid})")
        with pytest.raises(psycopg.errors.QueryCanceled, match="due to user request"):
            await sleeping
