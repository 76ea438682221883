"""The same programs on a plain connection and in the sandbox: a driver sees no difference.

Run by hand, with more: CONFORMANCE_PROGRAMS=10000 CONFORMANCE_SEED=1 pytest tests/integration/sandbox
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import hypothesis
import pytest
from tests.integration.sandbox.conftest import SEEDS, Box
from tests.integration.sandbox.programs import Step, programs, running

import psycopg
from dataflow.testing.dsn import Dsn
from dataflow.testing.isolation.psycopg_tests import PsycopgTests
from dataflow.testing.runtime import Runtime
from dataflow.testing.settings import Sources, resolve

PROGRAMS = int(os.environ.get("CONFORMANCE_PROGRAMS", "200"))
SEED = os.environ.get("CONFORMANCE_SEED")

Outcome = tuple[list[Any], list[Any]]
Way = Callable[[list[Step]], Outcome]


@pytest.fixture(params=["any driver", "psycopg", "psycopg, asynchronous"])
def sandboxed(request: pytest.FixtureRequest, dsn: Dsn) -> Iterator[Way]:
    """A way to run a program in a sandbox of its own."""
    ways = {"any driver": _in_a_box, "psycopg": _with_psycopg, "psycopg, asynchronous": _in_a_loop}
    with ways[request.param](dsn) as way:
        yield way


def test_a_driver_sees_no_difference(dsn: Dsn, sandboxed: Way) -> None:
    @hypothesis.settings(
        max_examples=PROGRAMS,
        deadline=None,
        derandomize=SEED is None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(programs)
    def check(program: list[Step]) -> None:
        with closing(_enter(dsn)) as one:
            seen = one.wait(running(one, program))
        with closing(_enter(dsn)) as other:
            plain = seen, _rows(other)
        with closing(_enter(dsn)) as admin:
            admin.execute(SEEDS)
        assert sandboxed(program) == plain

    (hypothesis.seed(int(SEED))(check) if SEED is not None else check)()


def _enter(dsn: Dsn) -> psycopg.Connection:
    return psycopg.connect(dsn.url(), autocommit=True)


def _rows(connection: psycopg.Connection) -> list[Any]:
    """Those that the next one who connects finds: behind the end of the other, whose locks it waits for."""
    connection.execute("RESET ALL")
    return [connection.execute(query).fetchall() for query in _TABLES]


_TABLES = (b"SELECT * FROM t ORDER BY 1", b"SELECT * FROM child ORDER BY 1")


@contextmanager
def _in_a_box(dsn: Dsn) -> Iterator[Way]:
    def run(program: list[Step]) -> Outcome:
        with closing(Box(dsn)) as box:
            with closing(_enter(box.dsn)) as one:
                seen = one.wait(running(one, program))
            with closing(_enter(box.dsn)) as other:
                return seen, _rows(other)

    yield run


@contextmanager
def _with_psycopg(dsn: Dsn) -> Iterator[Way]:
    tests = PsycopgTests(lambda: dsn, lambda: resolve(Sources()), lambda _event: None)

    def run(program: list[Step]) -> Outcome:
        context = tests.begin("a program")
        try:
            with closing(context.connect(autocommit=True)) as one:
                seen = one.wait(running(one, program))
            return seen, _rows(context.connect(autocommit=True))
        finally:
            tests.end(context)
            tests.close()  # a setting of its own that was ever set is empty afterwards, and not unknown

    yield run


@contextmanager
def _in_a_loop(dsn: Dsn) -> Iterator[Way]:
    runtime = Runtime(command_line={"database_url": dsn.url(), "server": "auto"})

    async def run(program: list[Step]) -> Outcome:
        async with runtime.test_context("a program") as context:
            context.connection.forbid_reuse()
            one = await context.connect_psycopg(autocommit=True)
            seen = await one.wait(running(one, program))
            await one.close()
            other = await context.connect_psycopg(autocommit=True)
            await other.execute("RESET ALL")
            return seen, [await (await other.execute(query)).fetchall() for query in _TABLES]

    with asyncio.Runner() as runner:
        yield lambda program: runner.run(run(program))
        runner.run(runtime.close())
