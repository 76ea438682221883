"""The same programs on a plain connection and in the sandbox: a driver sees no difference.

Run by hand, with more: CONFORMANCE_PROGRAMS=10000 CONFORMANCE_SEED=1 pytest tests/integration/sandbox
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

import hypothesis
import psycopg
from tests.integration.sandbox.conftest import SEEDS, Box
from tests.integration.sandbox.programs import Step, programs, run

from dataflow.testing.dsn import Dsn

PROGRAMS = int(os.environ.get("CONFORMANCE_PROGRAMS", "200"))
SEED = os.environ.get("CONFORMANCE_SEED")


def test_a_driver_sees_no_difference(dsn: Dsn) -> None:
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
        plain = _outcome(dsn, program)
        with closing(psycopg.connect(dsn.url(), autocommit=True)) as admin:
            admin.execute(SEEDS)
        with closing(Box(dsn)) as box:
            boxed = _outcome(box.dsn, program)
        assert boxed == plain

    (hypothesis.seed(int(SEED))(check) if SEED is not None else check)()


def _outcome(dsn: Dsn, program: list[Step]) -> tuple[list[Any], list[Any]]:
    """What was seen, and which rows there are for the next one who connects."""
    with closing(psycopg.connect(dsn.url(), autocommit=True)) as connection:
        seen = run(connection, program)
    with closing(psycopg.connect(dsn.url(), autocommit=True)) as connection:
        connection.execute("RESET ALL")
        # Behind the end of the other, whose locks it waits for.
        rows = [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1".encode()).fetchall()
            for table in ("t", "child")
        ]
    return seen, rows
