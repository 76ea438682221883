"""What psycopg costs in a test: beside a plain connection, and beside a fixture that one would write by hand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psycopg

from benchmarks import overhead
from benchmarks.setting import options
from dataflow.testing.dsn import Dsn
from dataflow.testing.runtime import Runtime
from dataflow.testing.server.embedded import lease_database

CALLS = int(os.environ.get("BENCH_CALLS", "3000"))

Call = Callable[[Any], object]
STATEMENTS: dict[str, Call] = {
    "no parameter": lambda connection: connection.execute("SELECT 1").fetchone(),
    "one parameter": lambda connection: connection.execute("SELECT %s::int", (1,)).fetchone(),
    "insert of a row": lambda connection: connection.execute("INSERT INTO note VALUES (%s)", (1,)),
    "10,000 rows": lambda connection: connection.execute("SELECT * FROM generate_series(1, 10000)").fetchall(),
}
ASYNCHRONOUS = {"no parameter": "SELECT 1", "insert of a row": "INSERT INTO note VALUES (1)"}
SLOW = {"10,000 rows": 100}


def run(folder: Path) -> None:
    lease = lease_database(options(folder), what="benchmark")
    try:
        _in_a_test(lease.version, lease.dsn)
        asyncio.run(_in_a_loop(lease.dsn))
        overhead.compare(folder, overhead.PSYCOPG, lease.dsn.url())
    finally:
        lease.close()


def _in_a_test(version: str, dsn: Dsn) -> None:
    os.environ["TEST_DATABASE_URL"] = dsn.url()
    runtime = Runtime()
    plain = psycopg.connect(dsn.url(), autocommit=True)
    try:
        plain.execute("CREATE TABLE note (id int)")
        context = runtime.psycopg_tests.begin("benchmark")
        print(f"PostgreSQL {version}, UNIX socket, autocommit; {CALLS} calls each; ms per call: medians")
        _statements(plain, context.connect(autocommit=True))
        _print(
            "connect and close",
            _times(CALLS // 10, lambda: psycopg.connect(dsn.url()).close(), lambda: context.connect().close()),
        )
        runtime.psycopg_tests.end(context)
    finally:
        plain.close()
        runtime.release()


async def _in_a_loop(dsn: Dsn) -> None:
    runtime = Runtime()
    plain = await psycopg.AsyncConnection.connect(dsn.url(), autocommit=True)
    async with runtime.test_context("benchmark") as context:
        print("the same, asynchronous")
        boxed = await context.connect_psycopg(autocommit=True)
        for name, sql in ASYNCHRONOUS.items():
            _print(name, await _awaited(CALLS, lambda: plain.execute(sql), lambda: boxed.execute(sql)))  # noqa: B023

        async def connect_plain() -> None:
            await (await psycopg.AsyncConnection.connect(dsn.url())).close()

        async def connect_boxed() -> None:
            await (await context.connect_psycopg()).close()

        _print("connect and close", await _awaited(CALLS // 10, connect_plain, connect_boxed))
    await plain.close()
    await runtime.close()


def _statements(plain: Any, boxed: Any) -> None:
    # Not counted: where the kernel puts two new backends settles in the meantime.
    _times(CALLS, lambda: plain.execute("SELECT 1"), lambda: boxed.execute("SELECT 1"))
    for where in ("outside of transactions", "inside of one"):
        if where == "inside of one":
            plain.execute("BEGIN")
            boxed.execute("BEGIN")
        for name, call in STATEMENTS.items():
            calls = SLOW.get(name, CALLS)
            _print(
                f"{name}, {where}", _times(calls, lambda call=call: call(plain), lambda call=call: call(boxed))
            )
    plain.execute("ROLLBACK")
    boxed.execute("ROLLBACK")


async def _awaited(calls: int, *ways: Callable[[], Awaitable[object]]) -> list[float]:
    """Medians in ms, of calls in turn; the first tenth does not count."""
    times: list[list[float]] = [[] for _ in ways]
    for number in range(calls):
        for way, taken in zip(ways, times, strict=True):
            started = perf_counter()
            await way()
            if number >= calls // 10:
                taken.append((perf_counter() - started) * 1e3)
    return [median(taken) for taken in times]


def _times(calls: int, *ways: Callable[[], object]) -> list[float]:
    async def awaited(way: Callable[[], object]) -> object:
        return way()

    return asyncio.run(_awaited(calls, *(partial(awaited, way) for way in ways)))


def _print(name: str, times: list[float]) -> None:
    plain, boxed = times
    more = f"{boxed - plain:+.3f}, {boxed / plain:.2f} times"
    print(f"  {name:<42} plain {plain:6.3f}, in a test {boxed:6.3f}: {more}")
