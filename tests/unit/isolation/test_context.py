"""A context without a server: names, validation, states, and which one is current."""

from __future__ import annotations

import asyncio

import pytest

from dataflow.testing.errors import NoTestConnection, SettingsError, StaleContext
from dataflow.testing.isolation.context import (
    ContextState,
    TDDTestContext,
    clear_test_context,
    get_test_context,
    set_test_context,
)


def test_defaults_are_unique():
    one, two = TDDTestContext(), TDDTestContext()
    assert one.test_id.startswith("test_")
    assert one.savepoint_name.startswith("sp_")
    assert one.test_id != two.test_id
    assert one.savepoint_name != two.savepoint_name
    assert (one.isolation_level, one.timeout, one.metadata) == ("READ COMMITTED", None, {})
    assert one.metadata is not two.metadata
    assert one != two


def test_what_is_given_is_kept():
    context = TDDTestContext("mine", "serializable", 2.5, "sp", {"a": 1})
    assert (context.test_id, context.isolation_level, context.timeout) == ("mine", "SERIALIZABLE", 2.5)
    assert (context.savepoint_name, context.metadata) == ("sp", {"a": 1})


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ("read committed", "READ COMMITTED"),
        ("Repeatable_Read", "REPEATABLE READ"),
        ("  serializable ", "SERIALIZABLE"),
        ("READ  UNCOMMITTED", "READ UNCOMMITTED"),
    ],
)
def test_isolation_levels_in_any_spelling(given, level):
    assert TDDTestContext(isolation_level=given).isolation_level == level


@pytest.mark.parametrize("given", ["", "SNAPSHOT", "SERIALIZABLE; DROP TABLE x", None, 3])
def test_other_isolation_levels_are_refused(given):
    with pytest.raises(SettingsError, match="must be one of READ COMMITTED, READ UNCOMMITTED, REPEATABLE READ"):
        TDDTestContext(isolation_level=given)


@pytest.mark.parametrize("given", [0, -1, float("nan"), float("inf"), "5", True])
def test_other_timeouts_are_refused(given):
    with pytest.raises(SettingsError, match="a number of seconds, more than 0"):
        TDDTestContext(timeout=given)


def test_without_a_connection_it_says_whether_it_never_had_one():
    context = TDDTestContext("x")
    assert context.state is ContextState.NEW
    with pytest.raises(NoTestConnection, match="context of x has no connection yet"):
        _ = context.connection
    context.detach()
    assert context.state is ContextState.RELEASED
    with pytest.raises(StaleContext, match="context of x: its connection was given back"):
        _ = context.connection


def test_how_it_is_described():
    context = TDDTestContext("x", owner="y")
    assert context.describe().startswith("x (y), held for 0.")
    assert context.describe().endswith("no statement yet")
    assert TDDTestContext("x", owner="x").holder == TDDTestContext("x").holder == "x"


def test_the_current_context_belongs_to_its_task():
    async def main():
        assert get_test_context() is None
        mine = TDDTestContext("mine")
        set_test_context(mine)

        async def task():
            assert get_test_context() is mine
            set_test_context(TDDTestContext("of the task"))

        await asyncio.create_task(task())
        assert get_test_context() is mine
        clear_test_context()
        assert get_test_context() is None

    asyncio.run(main())
