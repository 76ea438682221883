"""The statements of a test: shown when it fails, and counted against what its marker allows."""

from __future__ import annotations

import re

SCHEMA = """
CREATE TABLE line (id int PRIMARY KEY, text text);
INSERT INTO line SELECT n, 'x' FROM generate_series(1, 40) n;
"""


def with_schema(project) -> None:
    project.ini(asyncio_mode="auto", tdd_schema_sql="schema.sql")
    project.file("schema.sql", SCHEMA)


def test_a_failure_shows_the_last_statements_with_phase_time_parameters_and_error(project):
    with_schema(project)
    outcome = project.run(
        """
        import pytest, pytest_asyncio

        @pytest_asyncio.fixture
        async def prepared(tdd_test_context):
            await tdd_test_context.connection.execute("INSERT INTO line VALUES (100, 'of the fixture')")

        async def test_fails(prepared, tdd_test_context):
            await tdd_test_context.connection.fetch("SELECT * FROM line WHERE id = $1 OR text = $2", 7, "y" * 500)
            await tdd_test_context.connection.fetch("SELECT * FROM lines")

        async def test_passes(tdd_test_context):
            await tdd_test_context.connection.fetch("SELECT 'nobody reads this'")

        def test_fails_with_psycopg(tdd_psycopg):
            tdd_psycopg.connection.execute("SELECT %s::int", (3,))
            assert 1 == 2
        """
    )
    outcome.assert_outcomes(passed=1, failed=2).assert_silent_about("nobody reads this")
    assert outcome.text.count("- SQL of this test -") == 2
    lines = outcome.text.splitlines()
    assert any(
        re.fullmatch(r"setup +\d+\.\d\d ms  INSERT INTO line VALUES \(100, 'of the fixture'\)", x) for x in lines
    )
    assert any(
        re.fullmatch(r"call +\d+\.\d\d ms  SELECT \* FROM line WHERE id = \$1 OR text = \$2", x) for x in lines
    )
    assert any(re.fullmatch(rf" +with \$1 = 7, \$2 = '{'y' * 60}…' \(500 bytes\)", x) for x in lines)
    assert any(re.fullmatch(r"call +\d+\.\d\d ms  SELECT \* FROM lines  ERROR 42P01", x) for x in lines)
    assert any(re.fullmatch(r"call +\d+\.\d\d ms  SELECT \$1::int", x) for x in lines)


def test_a_statement_that_names_a_secret_shows_no_value(project):
    outcome = project.run(
        """
        async def test_fails(tdd_test_context):
            connection = tdd_test_context.connection
            await connection.execute("CREATE TABLE login (name text, password text)")
            await connection.execute("INSERT INTO login (name, password) VALUES ('Ann', 'hun''ter2')")
            await connection.execute("INSERT INTO login (name, password) VALUES ($1, $2)", "Bob", "swordfish")
            raise ValueError
        """
    )
    section = outcome.text.partition("- SQL of this test -")[2]
    assert "VALUES ('***', '***')" in section
    assert "with $1 = ***, $2 = ***" in section
    assert not any(value in section for value in ("Ann", "ter2", "Bob", "swordfish"))


def test_of_many_the_last_are_shown(project):
    outcome = project.run(
        """
        async def test_fails(tdd_test_context):
            for number in range(99):
                await tdd_test_context.connection.execute(f"SELECT {number}")
            await tdd_test_context.pool.execute("SELECT 'another'")
            assert False
        """
    )
    outcome.assert_outcomes(failed=1).assert_says("100 statements, the last 30:", "SELECT 98")
    assert re.search(r"call +#1 +[\d.]+ ms  SELECT 98\n", outcome.text)
    assert re.search(r"call +#2 +[\d.]+ ms  SELECT 'another'\n", outcome.text)
    outcome.assert_silent_about("SELECT 69")


def test_a_budget_that_is_kept_and_one_that_is_not(project):
    with_schema(project)
    outcome = project.run(
        """
        import pytest, pytest_asyncio

        pytestmark = pytest.mark.tdd(max_statements=3)

        @pytest_asyncio.fixture
        async def prepared(tdd_test_context):
            for number in range(10):
                await tdd_test_context.connection.execute("SELECT 'of the fixture'")

        async def test_keeps_it(prepared, tdd_test_context):
            async with tdd_test_context.connection.transaction():
                for number in range(3):
                    await tdd_test_context.connection.fetchval("SELECT $1::int", number)

        async def test_asks_for_each(prepared, tdd_test_context):
            ids = await tdd_test_context.connection.fetch("SELECT id FROM line ORDER BY id")
            for (id,) in ids:
                await tdd_test_context.pool.fetchrow("SELECT * FROM line WHERE id = $1", id)

        @pytest.mark.tdd(max_statements=40)
        def test_may_more(tdd_psycopg):
            for number in range(40):
                tdd_psycopg.connection.execute(f"SELECT * FROM line WHERE id = {number}")

        def test_literals_do_not_hide_it(tdd_psycopg):
            for n in range(10):
                tdd_psycopg.connection.execute(f"SELECT * FROM line WHERE id = {n} OR text = 'it''s {n}'")

        async def test_fails_by_itself(tdd_test_context):
            for number in range(10):
                await tdd_test_context.connection.execute("SELECT 1")
            raise ValueError("its own")

        def test_has_none(): pass
        """
    )
    outcome.assert_outcomes(passed=2, failed=4).assert_says(
        "test_it.py::test_asks_for_each: 41 statements were sent, and max_statements allows 3:",
        "40 x SELECT * FROM line WHERE id = $1",
        "1 x SELECT id FROM line ORDER BY id",
        "likely cause: a loop that asks for each row by itself",
        "10 x SELECT * FROM line WHERE id = ? OR text = ?",
        "ValueError: its own",
        "test_has_none: max_statements counts what is sent on connections of the test that are recorded, "
        "and it has none",
    )
    outcome.assert_silent_about("test_fails_by_itself: 10 statements")


def test_however_many_different_statements_there_were_before(project):
    with_schema(project)
    outcome = project.run(
        """
        import pytest

        @pytest.fixture
        def filled(tdd_psycopg):
            for number in range(1100):
                tdd_psycopg.connection.execute(f"INSERT INTO line VALUES ({number + 100})")

        @pytest.mark.tdd(max_statements=3)
        def test_asks_for_each(filled, tdd_psycopg):
            for number in range(5):
                tdd_psycopg.connection.execute(f"SAVEPOINT s{number}")
                tdd_psycopg.connection.execute(f"SELECT * FROM line WHERE id = {number}")
        """
    )
    outcome.assert_outcomes(failed=1).assert_says("5 statements were sent, and max_statements allows 3")


def test_a_marker_that_is_not_understood(project):
    outcome = project.run(
        """
        import pytest

        @pytest.mark.tdd(max_statements="ten")
        async def test_words(tdd_test_context): pass

        @pytest.mark.tdd(most=3)
        async def test_another_name(tdd_test_context): pass
        """
    )
    outcome.assert_says(
        "the marker tdd(max_statements='ten') is not understood",
        "the marker tdd(most=3) is not understood",
        "max_statements=10 or another number",
    )
    assert outcome.result.ret == 1


def test_the_nearest_marker_that_says_something_counts(project):
    outcome = project.run(
        """
        import pytest

        pytestmark = pytest.mark.tdd(isolation="database")

        @pytest.mark.tdd(max_statements=1)
        async def test_both(tdd_test_context):
            assert tdd_test_context.database is not None
            await tdd_test_context.connection.execute("SELECT 1")
            await tdd_test_context.connection.execute("SELECT 2")
        """
    )
    outcome.assert_outcomes(failed=1).assert_says("2 statements were sent, and max_statements allows 1")


def test_what_an_engine_of_sqlalchemy_asks_for_itself_does_not_count(project):
    project.run(
        """
        import pytest, sqlalchemy as sa

        pytestmark = pytest.mark.tdd(max_statements=1)

        @pytest.mark.parametrize("n", range(2))
        def test_plain(tdd_session, n):
            tdd_session.execute(sa.text("SELECT 1"))

        @pytest.mark.parametrize("n", range(2))
        async def test_asynchronous(tdd_async_session, n):
            await tdd_async_session.execute(sa.text("SELECT 1"))
        """
    ).assert_outcomes(passed=4)


def test_what_asyncpg_asks_about_a_type_does_not_count(project):
    project.run(
        """
        import pytest

        @pytest.mark.tdd(max_statements=2)
        async def test_it(tdd_test_context):
            connection = tdd_test_context.connection
            await connection.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
            await connection.set_type_codec("mood", schema="public", encoder=str, decoder=str)
            assert await connection.fetchval("SELECT $1::mood", "sad") == "sad"
        """
    ).assert_outcomes(passed=1)


def test_of_a_test_with_psycopg_that_commits_it_is_said_that_nothing_is_recorded(project):
    project.run(
        """
        import pytest
        from dataflow.testing.errors import ContextError

        @pytest.mark.tdd(isolation="database")
        def test_commits(tdd_psycopg):
            tdd_psycopg.connection.execute("SELECT 1")
            with pytest.raises(ContextError, match="what it sends is not recorded"):
                tdd_psycopg.statements
        """
    ).assert_outcomes(passed=1)


def test_what_psycopg_deallocates_behind_a_rollback_is_no_statement_of_the_test(project):
    with_schema(project)
    outcome = project.run(
        """
        import pytest

        @pytest.mark.tdd(max_statements=7)
        def test_rolls_back(tdd_psycopg):
            for number in range(7):  # psycopg prepares what it has seen five times
                tdd_psycopg.connection.execute("SELECT %s::int", (number,))
            tdd_psycopg.connection.rollback()
            assert len(tdd_psycopg.statements.queries) == 7
        """
    )
    outcome.assert_outcomes(passed=1)
