"""What a statement costs on a test's connection, beside a plain connection of asyncpg, call by call in turn."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import asyncpg

from benchmarks.setting import options
from dataflow.testing.runtime import Runtime
from dataflow.testing.server.embedded import lease_database

CALLS = int(os.environ.get("BENCH_CALLS", "3000"))

Call = Callable[[Any], Awaitable[object]]
STATEMENTS: dict[str, Call] = {
    "fetchval, no parameter": lambda connection: connection.fetchval("SELECT 1"),
    "fetchval, one parameter": lambda connection: connection.fetchval("SELECT $1::int", 1),
    "execute": lambda connection: connection.execute("SELECT 1"),
    "insert of a row": lambda connection: connection.execute("INSERT INTO note VALUES ($1)", 1),
    "10,000 rows": lambda connection: connection.fetch("SELECT * FROM generate_series(1, 10000)"),
}
SLOW = {"10,000 rows": 100}


def run(folder: Path) -> None:
    asyncio.run(_run(folder))


async def _run(folder: Path) -> None:
    lease = lease_database(options(folder), what="benchmark")
    os.environ["TEST_DATABASE_URL"] = lease.dsn.url()
    runtime = Runtime()
    plain = await asyncpg.connect(lease.dsn.url())
    try:
        await plain.execute("CREATE TABLE note (id int)")
        async with runtime.test_context("benchmark") as context:
            await _all(lease.version, plain, context.connection)
    finally:
        await plain.close()
        await runtime.close()
        lease.close()


async def _all(version: str, plain: Any, boxed: Any) -> None:
    print(f"PostgreSQL {version}, UNIX socket; {CALLS} calls each; ms per call: medians")
    for where in ("outside of transactions", "inside of one"):
        if where == "inside of one":
            await plain.execute("BEGIN")
            await boxed.execute("BEGIN")
        for name, call in STATEMENTS.items():
            await _compare(f"{name}, {where}", call, plain, boxed, SLOW.get(name, CALLS))


async def _compare(name: str, call: Call, plain: Any, boxed: Any, calls: int) -> None:
    times: dict[Any, list[float]] = {plain: [], boxed: []}
    for number in range(calls):
        for connection in times:
            started = perf_counter()
            await call(connection)
            if number >= calls // 10:
                times[connection].append((perf_counter() - started) * 1e3)
    one, other = median(times[plain]), median(times[boxed])
    print(f"  {name:<50} plain {one:6.3f}, in a test {other:6.3f}: {other - one:+.3f}, {other / one:.2f} times")
