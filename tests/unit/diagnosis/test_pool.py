"""The verdict on the figures of a pool."""

from __future__ import annotations

from dataflow.testing.diagnosis.model import Status
from dataflow.testing.diagnosis.pool import Holder, PoolSizes, Verdict, describe_pool


def test_no_pool_is_no_failure_and_says_what_makes_one() -> None:
    pool = describe_pool(None, ())
    assert pool
    assert pool.verdict is Verdict.NO_POOL
    assert pool.checks[0].status is Status.INFO
    assert "setup_tdd_infrastructure" in str(pool)


def test_a_full_pool_with_an_idle_connection_is_not_exhausted() -> None:
    pool = describe_pool(PoolSizes(size=3, min_size=1, max_size=3, idle=1), ())
    assert pool.verdict is Verdict.AVAILABLE
    assert pool.checks[0].found == "1 of 3 connections are available"


def test_a_pool_that_may_still_open_some_is_not_exhausted() -> None:
    pool = describe_pool(PoolSizes(size=1, min_size=0, max_size=3, idle=0), ())
    assert pool.checks[0].found == "2 of 3 connections are available"


def test_an_exhausted_pool_names_each_holder_and_the_way_out() -> None:
    holders = [Holder("test_a", 12.34, "SELECT 1"), Holder("test_b", 0.0, None, beside=True)]
    pool = describe_pool(PoolSizes(size=1, min_size=0, max_size=1, idle=0), holders)
    assert not pool
    assert pool.verdict is Verdict.EXHAUSTED
    assert "- test_a, held for 12.3 s, last statement: SELECT 1" in str(pool)
    assert "- test_b, held for 0.0 s, beside the pool, no statement yet" in str(pool)
    assert "cleanup_test_connection" in str(pool)
    assert "DATAFLOW_TDD_POOL_SIZE" in str(pool)
