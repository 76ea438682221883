"""What the server says when it is asked how far it is."""

from __future__ import annotations

import re

import psycopg
import pytest

from dataflow.testing.proof.horizon import HORIZON, read_horizon

AS_TEXT = f"SELECT a::text, b::text, c::text FROM ({HORIZON}) AS horizon (a, b, c)"


@pytest.mark.asyncio
async def test_each_answer_stands_where_it_is_read(tdd):
    with psycopg.connect(tdd.dsn.url()) as under_way, psycopg.connect(tdd.dsn.url()) as connection:
        ((current,),) = under_way.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()
        (row,) = connection.execute(AS_TEXT).fetchall()
    horizon = read_horizon(*row)
    oldest, following, _ = horizon.snapshot.split(":")
    assert re.fullmatch("[0-9A-F]+/[0-9A-F]+", horizon.position)
    assert int(oldest) <= current
    assert int(oldest) <= int(following)
    assert horizon.first_new > current
