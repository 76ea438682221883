"""What is recorded of the statements of a test, whichever driver sends them."""

from __future__ import annotations

import datetime
import decimal
import uuid

import asyncpg
import psycopg
import pytest
import pytest_asyncio
from tests.integration.isolation.conftest import Watched

from dataflow.testing.errors import NoTestConnection
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.isolation.psycopg_tests import PsycopgContext

pytestmark = pytest.mark.asyncio
UUID = uuid.UUID("5d947b2e-8c7b-44da-82aa-b35698f26094")
WHEN = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
VALUES = [
    ("int", 5, "5"),
    ("int8", -(2**40), "-1099511627776"),
    ("bool", True, "true"),
    ("float8", 1.5, "1.5"),
    ("numeric", decimal.Decimal("-1234567.00450"), "-1234567.00450"),
    ("numeric", decimal.Decimal("0.0001"), "0.0001"),
    ("numeric", decimal.Decimal("100000000"), "100000000"),
    ("numeric", decimal.Decimal("NaN"), "NaN"),
    ("text", "it's", "'it''s'"),
    ("text", "x" * 61, "'" + "x" * 60 + "…' (61 characters)"),
    ("text", "x" * 5000, "'" + "x" * 60 + "…' (5000 bytes)"),
    ("text", None, "NULL"),
    ("uuid", UUID, f"'{UUID}'"),
    ("date", datetime.date(1999, 12, 31), "'1999-12-31'"),
    ("timestamp", WHEN.replace(tzinfo=None), "'2024-02-29 12:30:00'"),
    ("timestamptz", WHEN, "'2024-02-29 12:30:00+00'"),
    ("jsonb", '{"a": 1}', "'{\"a\": 1}'"),
    ("bytea", b"123", "(3 bytes)"),
    ("int[]", [1, None, 3], "{1, NULL, 3}"),
    ("text[]", [], "{}"),
    ("int[]", list(range(500)), "{0, 1, 2, 3, 4, 5, 6, 7, … (500 values)}"),
    ("int[]", [[1], [2]], "(array of 2 dimensions)"),
    ("inet", "127.0.0.1", "(8 bytes)"),
]


@pytest_asyncio.fixture
async def context(tdd: Watched):
    async with tdd.test_context("records") as context:
        yield context


@pytest.fixture
def sync(tdd: Watched):
    context = tdd.psycopg_tests.begin("records")
    yield context
    tdd.psycopg_tests.end(context)


@pytest.mark.parametrize(("type_", "value", "shown"), VALUES)
async def test_parameters_are_shown_as_sql_and_long_ones_are_shortened(
    context: TDDTestContext, type_, value, shown
):
    await context.connection.fetchval(f"SELECT $1::{type_}", value)
    statement = context.statements[-1]
    assert (statement.sql, statement.parameters) == (f"SELECT $1::{type_}", [shown])


async def test_the_same_of_psycopg_in_both_formats(sync: PsycopgContext):
    connection = sync.connect(autocommit=True)
    values = (1, "it's", decimal.Decimal("1.20"), None, [1, 2], b"1")
    shown = ["1", "'it''s'", "1.20", "NULL"]
    connection.execute("SELECT %s::int, %s, %s, %s::text, %s::int[], %s", values)
    assert sync.statements[-1].parameters[:4] == shown
    connection.execute("SELECT %b::int, %b, %b, %b::text, %b::int[], %b", values)
    assert sync.statements[-1].parameters[:4] == shown
    assert sync.statements[-1].parameters[4:] == ["{1, 2}", "(1 bytes)"]
    for _ in range(7):  # psycopg prepares what it sees often
        connection.execute("SELECT %s::int", (7,))
    assert {tuple(each.parameters) for each in sync.statements[-7:]} == {("7",)}


async def test_statements_have_their_time_number_and_error(context: TDDTestContext):
    connection = context.connection
    await connection.execute("SELECT pg_sleep(0.05)")
    with pytest.raises(asyncpg.UndefinedColumnError):
        await connection.execute("SELECT simple")
    with pytest.raises(asyncpg.UndefinedColumnError):
        await connection.fetch("SELECT prepared")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await connection.fetch("SELECT 1 / $1::int", 0)
    await connection.executemany("INSERT INTO item VALUES ($1)", [(number,) for number in range(20)])
    other = await context.connect()
    await other.fetchval("SELECT 2")
    found = context.statements
    assert [each.sql for each in found] == [
        "SELECT pg_sleep(0.05)",
        "SELECT simple",
        "SELECT prepared",
        "SELECT 1 / $1::int",
        "INSERT INTO item VALUES ($1)",
        "SELECT 2",
    ]
    assert [each.error for each in found] == [None, "42703", "42703", "22012", None, None]
    assert [each.times for each in found] == [1, 1, 1, 1, 20, 1]
    assert [each.connection for each in found] == [1, 1, 1, 1, 1, 2]
    assert found[0].duration_ms >= 50
    assert found.total == 6
    assert [each.at_s for each in found] == sorted(each.at_s for each in found)


async def test_transactions_are_recorded_and_can_be_left_out(context: TDDTestContext):
    async with context.connection.transaction():
        await context.connection.fetchval("SELECT 1")
        async with context.connection.transaction():
            await context.connection.fetchval("SELECT 2")
    assert len(context.statements) == 6
    assert [each.sql for each in context.statements.queries] == ["SELECT 1", "SELECT 2"]


async def test_what_the_library_and_the_driver_do_for_themselves_is_not_in_it(context: TDDTestContext):
    await context.connection.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    assert await context.connection.fetchval("SELECT $1::mood[]", ["ok"]) == ["ok"]
    assert len(context.statements) == 2


async def test_passwords_are_hidden(context: TDDTestContext):
    await context.connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'hunter2'")
    await context.connection.fetchval("SELECT $1 AS password", "hunter2")
    assert "hunter2" not in str([(each.sql, each.parameters) for each in context.statements])
    assert context.statements[-1].parameters == ["***"]


async def test_of_many_statements_the_last_are_kept_and_all_are_counted(context: TDDTestContext):
    for number in range(1_005):
        await context.connection.execute(f"SELECT {number}")
    assert (context.statements.total, len(context.statements)) == (1_005, 1_000)
    assert context.statements[-1].sql == "SELECT 1004"


async def test_a_cursor_and_a_prepared_statement_of_the_test_before(tdd: Watched):
    for _ in range(2):
        async with tdd.test_context("asks the same") as context:
            async with context.connection.transaction():
                cursor = await context.connection.cursor("SELECT generate_series(1, $1::int)", 10)
                assert len([await cursor.fetchrow() for _ in range(10)]) == 10
            await context.connection.fetchval("SELECT $1::int", 3)
        assert [(each.sql, each.parameters) for each in context.statements.queries] == [
            ("SELECT generate_series(1, $1::int)", ["10"]),
            ("SELECT $1::int", ["3"]),
        ]


async def test_they_are_there_when_the_test_is_over_and_hold_nothing_of_the_next(tdd: Watched):
    async with tdd.test_context("first") as first:
        await first.connection.execute("SELECT 1")
    async with tdd.test_context("second") as second:
        await second.connection.execute("SELECT 2")
    assert [each.sql for each in first.statements] == ["SELECT 1"]
    assert [each.sql for each in second.statements] == ["SELECT 2"]
    with pytest.raises(NoTestConnection):
        _ = TDDTestContext().statements


async def test_a_test_that_commits_has_them_as_well(tdd: Watched):
    lease = tdd.lend_database("commits")
    context = await tdd.begin_committing_test("commits", lease)
    await context.connection.fetchval("SELECT $1::int", 1)
    assert [(each.sql, each.parameters) for each in context.statements] == [("SELECT $1::int", ["1"])]
    await tdd.end_test(context)
    tdd.take_back_database(lease)


async def test_a_pipeline_of_psycopg(sync: PsycopgContext):
    connection = sync.connect(autocommit=True)
    with connection.pipeline():
        for number in range(3):
            connection.execute("SELECT %s::int", (number,))
        connection.execute("SELECT 'another'")
    with pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM missing")
    assert sum(each.times for each in sync.statements) == 5
    assert [each.error for each in sync.statements][-1] == "42P01"
    assert "missing" in sync.statements[-1].sql
