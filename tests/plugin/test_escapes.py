"""What others commit while a test runs: a failure or a warning of that test, and of no other."""

from __future__ import annotations

SCHEMA = "CREATE TABLE word (text text PRIMARY KEY);\nINSERT INTO word VALUES ('seed');\n"
ESCAPES = """
    import asyncpg
    import psycopg

    async def test_adds(tdd_test_context, tdd_database_url):
        other = await asyncpg.connect(tdd_database_url)
        await other.execute("INSERT INTO word VALUES ('added')")
        await other.close()

    async def test_changes(tdd_test_context, tdd_database_url):
        assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM word") == 1
        other = await asyncpg.connect(tdd_database_url)
        await other.execute("UPDATE word SET text = 'changed'")
        await other.close()

    def test_with_psycopg(tdd_psycopg, tdd_database_url):
        assert tdd_psycopg.connection.execute("SELECT text FROM word").fetchall() == [("seed",)]
        with psycopg.connect(tdd_database_url) as other:
            other.execute("DELETE FROM word")

    async def test_finds_nothing(tdd_test_context):
        assert await tdd_test_context.connection.fetchval("SELECT text FROM word") == "seed"
"""


def with_schema(project) -> None:
    project.ini(asyncio_mode="auto", tdd_schema_sql="schema.sql")
    project.file("schema.sql", SCHEMA)


def test_as_an_error_it_names_test_tables_and_rows(project):
    with_schema(project)
    project.run(ESCAPES).assert_outcomes(passed=4, errors=3).assert_says(
        "CommitEscaped: test_it.py::test_adds: something was committed in its database while it ran; it was "
        "undone",
        "- public.word: 1 row added",
        "CommitEscaped: test_it.py::test_changes: something was committed in its database while it ran; the "
        "database was replaced by a fresh copy",
        "- public.word: 1 row updated",
        "- public.word: 1 row deleted",
        'mark the test tdd(isolation="database")',
        "isolation proven for 1 of 4 tests",
    ).assert_silent_about("Traceback", "not proven")


def test_as_a_warning_it_has_the_line_of_the_test_and_can_be_filtered(project):
    with_schema(project)
    outcome = project.run(ESCAPES, "--tdd-escapes=warn", warnings_are_errors=False)
    outcome.assert_outcomes(passed=4, warnings=3).assert_says(
        "test_it.py:5: EscapeWarning: test_it.py::test_adds: something was committed",
        "way out: give that code connections of the test",
        "proven for 1 of 4 tests",
    )
    ignore = "ignore::dataflow.testing.plugin.warnings.EscapeWarning"
    project.run(None, "--tdd-escapes=warn", "-W", ignore, warnings_are_errors=False).assert_outcomes(passed=4)


def test_a_test_that_has_failed_shows_both(project):
    with_schema(project)
    outcome = project.run(
        """
        import asyncpg

        async def test_fails(tdd_test_context, tdd_database_url):
            other = await asyncpg.connect(tdd_database_url)
            await other.execute("INSERT INTO word VALUES ('added')")
            await other.close()
            assert 1 == 2
        """
    )
    outcome.assert_outcomes(failed=1, errors=1).assert_says("assert 1 == 2", "CommitEscaped")


def test_workers_on_one_server_are_not_taken_for_each_other(project):
    """Those that commit all the time, in databases of their own or beside the rollback, and those that do not."""
    with_schema(project)
    project.file(
        "test_beside.py",
        """
        import asyncio, asyncpg, pytest

        @pytest.mark.parametrize("n", range(20))
        async def test_commits_in_its_own(tdd_database, n):
            async with tdd_database.connect() as connection:
                for text in "abcdef":
                    await connection.execute("INSERT INTO word VALUES ($1)", text)
        """,
    )
    outcome = project.run(
        """
        import asyncio, asyncpg, pytest

        @pytest.mark.parametrize("n", range(40))
        async def test_quiet(tdd_test_context, n):
            await tdd_test_context.connection.execute("INSERT INTO word VALUES ('mine')")
            await asyncio.sleep(0.02)

        @pytest.mark.parametrize("n", range(10))
        async def test_escapes(tdd_test_context, tdd_database_url, n):
            other = await asyncpg.connect(tdd_database_url)
            await other.execute("INSERT INTO word VALUES ('added')")
            await other.close()
        """,
        "-p",
        "xdist",
        "-n",
        "3",
        "--dist=load",
    )
    outcome.assert_outcomes(passed=70, errors=10).assert_says("isolation proven for 40 of 50 tests")
    outcome.assert_silent_about("not proven")
    for number in range(10):
        outcome.assert_says(f"ERROR test_it.py::test_escapes[{number}]")


def test_what_session_fixtures_commit_between_tests_is_nobodys(project):
    with_schema(project)
    outcome = project.run(
        """
        import psycopg, pytest

        @pytest.fixture(scope="session")
        def words(tdd_database_url):
            with psycopg.connect(tdd_database_url) as connection:
                connection.execute("INSERT INTO word VALUES ('of the session')")

        async def test_before(tdd_test_context): pass

        @pytest.mark.parametrize("n", range(2))
        async def test_with(words, tdd_test_context, n):
            assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM word") == 2
        """
    )
    outcome.assert_outcomes(passed=3).assert_says("isolation proven for 3 of 3 tests")


def test_a_wide_fixture_that_is_set_up_inside_of_a_test_is_for_all(project):
    with_schema(project)
    outcome = project.run(
        """
        import asyncpg, psycopg, pytest, pytest_asyncio

        @pytest.fixture(scope="session")
        def words(tdd_database_url):
            with psycopg.connect(tdd_database_url) as connection:
                connection.execute("INSERT INTO word VALUES ('of the session')")

        @pytest_asyncio.fixture(scope="module", loop_scope="module")
        async def more(tdd_database_url):
            connection = await asyncpg.connect(tdd_database_url)
            await connection.execute("INSERT INTO word VALUES ('of the module')")
            await connection.close()

        async def test_1_asks_late(tdd_test_context, request):
            request.getfixturevalue("words")
            assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM word") == 2

        def test_2_asks_late_with_psycopg(tdd_psycopg, request):
            request.getfixturevalue("more")
            assert tdd_psycopg.connection.execute("SELECT count(*) FROM word").fetchone() == (3,)

        async def test_3_finds_them(words, more, tdd_test_context):
            assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM word") == 3
        """
    )
    outcome.assert_outcomes(passed=3).assert_says("isolation proven for 3 of 3 tests")
