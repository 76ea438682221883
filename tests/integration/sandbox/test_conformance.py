"""The same programs on a plain connection and in the sandbox: a driver sees no difference.

`make conformance` runs more of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
from tests.integration.sandbox import calls, programs
from tests.integration.sandbox.conftest import SEEDS, Box
from tests.integration.sandbox.either import got, without_loop
from tests.integration.sandbox.generated import check_each

from dataflow.testing.dsn import Dsn
from dataflow.testing.runtime import Runtime

Outcome = tuple[list[Any], list[Any]]
# Runs what is done with a connection, and tells what was seen and which rows there are then.
Way = Callable[[Callable[[Any], Coroutine[Any, Any, list[Any]]]], Outcome]


def test_a_driver_sees_no_difference(dsn: Dsn, sandboxed: Way) -> None:
    async def run(program: Any, connection: Any) -> Any:
        return await got(connection.wait(programs.running(connection, program)))

    _compare(dsn, sandboxed, programs.programs, run, programs.FOUND)


def test_code_with_psycopg_sees_no_difference(dsn: Dsn, sandboxed: Way) -> None:
    async def run(program: Any, connection: Any) -> Any:
        await got(connection.set_autocommit(False))
        return await calls.run(connection, program)

    _compare(dsn, sandboxed, calls.programs, run)


def _compare(
    dsn: Dsn, sandboxed: Way, strategy: Any, run: Callable[..., Any], found: tuple[Any, ...] = ()
) -> None:
    """:param found: programs that once differed."""

    def check(program: Any) -> None:
        tries = 6 if calls.depends_on_time(program) else 1
        for _ in range(tries):
            plain = without_loop(_outcome(partial(psycopg.connect, dsn.url()), partial(run, program)))
            with closing(psycopg.connect(dsn.url(), autocommit=True)) as admin:
                admin.execute(SEEDS)
            inside = sandboxed(partial(run, program))
            if inside == plain or calls.FAILED in repr(plain):
                break
        if calls.FAILED in repr(plain):
            return
        assert inside == plain

    check_each(strategy, check, found)


async def _outcome(connect: Callable[..., Any], work: Callable[[Any], Any]) -> Outcome:
    """What was seen, and which rows there are for the next one who connects."""
    one = await got(connect(autocommit=True))
    try:
        seen = await work(one)
    finally:
        await got(one.close())
    other = await got(connect(autocommit=True))
    await got(other.execute("RESET ALL"))  # behind the end of the other, whose locks it waits for
    rows = [
        await got((await got(other.execute(f"SELECT * FROM {table} ORDER BY 1"))).fetchall())
        for table in ("t", "child")
    ]
    await got(other.close())
    return seen, rows


@pytest.fixture(params=["any driver", "psycopg", "psycopg, asynchronous"])
def sandboxed(request: pytest.FixtureRequest, dsn: Dsn) -> Iterator[Way]:
    ways = {"any driver": _in_a_box, "psycopg": _with_psycopg, "psycopg, asynchronous": _in_a_loop}
    with ways[request.param](dsn) as way:
        yield way


@contextmanager
def _in_a_box(dsn: Dsn) -> Iterator[Way]:
    def run(work: Callable[[Any], Any]) -> Outcome:
        with closing(Box(dsn)) as box:
            return without_loop(_outcome(partial(psycopg.connect, box.dsn.url()), work))

    yield run


@contextmanager
def _with_psycopg(dsn: Dsn) -> Iterator[Way]:
    runtime = _runtime(dsn)
    tests = runtime.psycopg_tests

    def run(work: Callable[[Any], Any]) -> Outcome:
        context = tests.begin("a program")
        try:
            return without_loop(_outcome(context.connect, work))
        finally:
            tests.end(context)
            tests.close()  # a setting of its own that was ever set is empty afterwards, and not unknown

    yield run
    runtime.release()


def _runtime(dsn: Dsn) -> Runtime:
    return Runtime(command_line={"database_url": dsn.url(), "server": "auto"})


@contextmanager
def _in_a_loop(dsn: Dsn) -> Iterator[Way]:
    runtime = _runtime(dsn)

    async def run(work: Callable[[Any], Any]) -> Outcome:
        async with runtime.test_context("a program") as context:
            context.connection.forbid_reuse()
            return await _outcome(context.connect_psycopg, work)

    with asyncio.Runner() as runner:
        yield lambda work: runner.run(run(work))
        runner.run(runtime.close())
