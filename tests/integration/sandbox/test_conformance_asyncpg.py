"""The same calls to asyncpg on a plain connection and in the sandbox. `make conformance` runs more of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import asyncpg
import psycopg
import pytest
from tests.integration.sandbox import asyncpg_calls
from tests.integration.sandbox.conftest import SEEDS
from tests.integration.sandbox.generated import check_each

from dataflow.testing.dsn import Dsn
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.runtime import Runtime

Outcome = tuple[list[Any], list[Any]]
WAYS: dict[str, Callable[[TDDTestContext], Awaitable[Any]]] = {}


def way(function: Callable[[TDDTestContext], Awaitable[Any]]) -> Callable[[TDDTestContext], Awaitable[Any]]:
    """How code under test gets its connection."""
    WAYS[function.__name__] = function
    return function


@way
async def connection(context: TDDTestContext) -> Any:
    return context.connection


@way
async def another(context: TDDTestContext) -> Any:
    return await context.connect()


@way
async def without_names(context: TDDTestContext) -> Any:
    """It parses each statement without a name, in another exchange than that which runs it."""
    return await context.connect(statement_cache_size=0)


@way
async def pooled(context: TDDTestContext) -> Any:
    return await context.pool.acquire()


@pytest.mark.parametrize("name", WAYS)
def test_code_with_asyncpg_sees_no_difference(dsn: Dsn, name: str) -> None:
    runtime = Runtime(command_line={"database_url": dsn.url(), "server": "auto"})
    options = {"statement_cache_size": 0} if name == "without_names" else {}

    async def plainly(program: Any) -> Outcome:
        one, other = await asyncpg.connect(dsn.url(), **options), await asyncpg.connect(dsn.url())
        try:
            return await _outcome(one, other, program)
        finally:
            await one.close()
            await other.close()

    async def sandboxed(program: Any) -> Outcome:
        async with runtime.test_context("a program") as context:
            context.connection.forbid_reuse()
            return await _outcome(await WAYS[name](context), await context.connect(), program)

    with asyncio.Runner() as runner, closing(psycopg.connect(dsn.url(), autocommit=True)) as admin:

        def check(program: Any) -> None:
            plain = runner.run(plainly(program))
            admin.execute("DROP TABLE IF EXISTS made")
            admin.execute(SEEDS)
            assert runner.run(sandboxed(program)) == plain

        check_each(asyncpg_calls.programs, check, asyncpg_calls.FOUND)
        runner.run(runtime.close())


async def _outcome(one: Any, other: Any, program: Any) -> Outcome:
    """What was seen, and which rows there are for others."""
    seen = await asyncpg_calls.run(one, program)
    if one.is_in_transaction():
        await one.execute("ROLLBACK")
    rows = [[tuple(row) for row in await other.fetch(f"SELECT * FROM {t} ORDER BY 1")] for t in ("t", "child")]
    return seen, [*rows, await other.fetchval("SELECT to_regclass('made') IS NULL")]
