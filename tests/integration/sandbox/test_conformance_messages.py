"""The same messages to a plain connection and in the sandbox. `make conformance` runs more of them."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial

import psycopg
import pytest
from tests.integration.sandbox import messages
from tests.integration.sandbox.conftest import SEEDS, Box
from tests.integration.sandbox.generated import check_each
from tests.integration.sandbox.messages import Program

from dataflow.testing.dsn import Dsn

Outcome = tuple[list[list[bytes]], list[object]]


@pytest.mark.parametrize("way", ["alone", "message by message", "beside another", "nothing is deferred"])
def test_whoever_speaks_the_protocol_sees_no_difference(dsn: Dsn, way: str) -> None:
    deferred = way != "nothing is deferred"
    run = partial(messages.run, one_by_one=way == "message by message")

    def outcome(at: Dsn, program: Program) -> Outcome:
        """What was said, and which rows there are for the next one who connects."""
        said = run(at, program)
        with closing(psycopg.connect(at.url(), autocommit=True)) as other:
            return said, [
                other.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in ("t", "child")
            ]

    with closing(psycopg.connect(dsn.url(), autocommit=True)) as admin:

        def check(program: Program) -> None:
            plain = outcome(dsn, program)
            admin.execute(SEEDS)
            with ExitStack() as stack:
                box = stack.enter_context(closing(Box(dsn, deferred=None if deferred else False)))
                if way == "beside another":
                    stack.enter_context(closing(psycopg.connect(box.dsn.url(), autocommit=True)))
                assert outcome(box.dsn, program) == plain

        check_each(messages.programs(deferred=deferred), check, messages.FOUND)
