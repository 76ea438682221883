"""Tests that really commit: the schema, a database for each test, what is told when it comes back."""

from __future__ import annotations

import pytest

SCHEMA = """
CREATE TABLE account (owner text PRIMARY KEY, cents int NOT NULL CHECK (cents >= 0));
INSERT INTO account VALUES ('Ann', 100), ('Bob', 0);
CREATE TABLE entry (id serial PRIMARY KEY, what text);
"""
AS_MADE = """
    import psycopg
    import pytest

    @pytest.fixture
    def looks_as_made(tdd_database):
        with psycopg.connect(tdd_database.url) as connection:
            accounts = connection.execute("SELECT * FROM account ORDER BY owner").fetchall()
            assert accounts == [("Ann", 100), ("Bob", 0)]
            entries = "SELECT count(*), (SELECT last_value FROM entry_id_seq) FROM entry"
            assert connection.execute(entries).fetchone() == (0, 1)
"""


@pytest.fixture
def shop(project):
    """A project whose tables come from an SQL file."""
    project.session_loops(tdd_schema_sql="schema.sql", tdd_database_env="DATABASE_URL,OTHER_URL")
    project.file("schema.sql", SCHEMA)
    project.conftest(AS_MADE)
    return project


def test_each_test_has_the_schema_and_sees_nothing_of_the_others(shop):
    outcome = shop.run(
        """
        import asyncio
        import os
        import subprocess
        import sys
        import psycopg
        import pytest

        PROGRAM = (
            "import os, psycopg\\n"
            "with psycopg.connect(os.environ['DATABASE_URL']) as connection:\\n"
            "    connection.execute(\\"INSERT INTO entry (what) VALUES ('another process')\\")"
        )

        def test_plain(looks_as_made, tdd_database):
            with tdd_database.connect_psycopg() as connection:
                connection.execute("UPDATE account SET cents = 7")
                connection.execute("INSERT INTO entry (what) VALUES ('x')")

        @pytest.mark.parametrize("n", range(3))
        async def test_two_connections_that_commit(looks_as_made, tdd_database, n):
            writer, reader = await tdd_database.connect(), await tdd_database.connect()
            await writer.execute("DELETE FROM account")
            assert await writer.fetchval("INSERT INTO entry (what) VALUES ('y') RETURNING id") == 1
            assert await reader.fetchval("SELECT count(*) FROM account") == 0
            await writer.close()
            await reader.close()

        def test_another_process(looks_as_made, tdd_database):
            subprocess.run([sys.executable, "-c", PROGRAM], check=True)
            with tdd_database.connect_psycopg() as connection:
                assert connection.execute("SELECT what FROM entry").fetchall() == [("another process",)]

        async def test_notifications(looks_as_made, tdd_database):
            listener, speaker = await tdd_database.connect(), await tdd_database.connect()
            heard = asyncio.Queue()
            await listener.add_listener("news", lambda *message: heard.put_nowait(message[-1]))
            await speaker.execute("NOTIFY news, 'extra'")
            async with asyncio.timeout(20):
                assert await heard.get() == "extra"
            await listener.close()
            await speaker.close()

        async def test_schema_changes(looks_as_made, tdd_database):
            connection = await tdd_database.connect()
            await connection.execute("DROP TABLE account; CREATE TABLE other (id int)")
            await connection.close()

        def test_after_all(looks_as_made, tdd_database):
            assert os.environ["DATABASE_URL"] == os.environ["OTHER_URL"] == tdd_database.url
        """,
        "-p",
        "no:randomly",
    )
    outcome.assert_outcomes(passed=8)
    outcome.assert_says(
        "schema schema.sql", "databases 8 tests with a database", "put back from the write-ahead log"
    )
    outcome.assert_says("1 replaced by a fresh copy: the schema changed")


def test_rollback_tests_find_the_schema_too(shop):
    shop.run(
        """
        import pytest

        @pytest.mark.parametrize("n", range(2))
        async def test_it(tdd_test_context, n):
            connection = tdd_test_context.connection
            assert await connection.fetchval("SELECT count(*) FROM account") == 2
            await connection.execute("DELETE FROM account")

        def test_url(tdd_database_url): pass
        """
    ).assert_outcomes(passed=3)


def test_the_marker_makes_a_context_commit_in_a_database_of_its_own(shop):
    outcome = shop.run(
        """
        import pytest

        @pytest.mark.tdd(isolation="database")
        class TestCommitting:
            async def test_commits(self, tdd_test_context):
                await tdd_test_context.connection.execute("DELETE FROM account")
                other = await tdd_test_context.database.connect()
                assert await other.fetchval("SELECT count(*) FROM account") == 0
                await other.close()

            async def test_next(self, tdd_test_context):
                assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM account") == 2

            @pytest.mark.tdd(isolation="fresh")
            async def test_fresh(self, tdd_test_context, tdd_database):
                assert tdd_test_context.database is tdd_database
                await tdd_test_context.connection.execute("CREATE TABLE mine (id int)")

            @pytest.mark.tdd(isolation="rollback")
            async def test_rolled_back(self, tdd_test_context):
                assert tdd_test_context.database is None
                await tdd_test_context.connection.execute("DELETE FROM account")
        """,
        "-p",
        "no:randomly",
    )
    outcome.assert_outcomes(passed=4).assert_says(
        "isolation proven for 1 of 1 tests: rolled back", "asked for a fresh copy"
    )


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ('isolation="rollback"', 'marked isolation="rollback" and asks for tdd_database, which commits'),
        ('isolation="clone"', "the marker tdd(isolation='clone') is not understood"),
        ('"database"', "the marker tdd('database') is not understood"),
    ],
)
def test_a_marker_that_cannot_be_followed_is_told(shop, marker, says):
    outcome = shop.run(f"import pytest\n\n@pytest.mark.tdd({marker})\ndef test_it(tdd_database): pass")
    outcome.assert_outcomes(errors=1).assert_says(says)
    outcome.assert_silent_about("isolation_of", "UsageError")


@pytest.mark.parametrize("order", ["tdd_database, tdd_test_context", "tdd_test_context, tdd_database"])
@pytest.mark.parametrize("isolation", ["database", "fresh"])
def test_a_context_that_commits_is_in_the_database_of_the_test(shop, isolation, order):
    outcome = shop.run(
        f"""
        import os
        import pytest

        @pytest.mark.tdd(isolation="{isolation}")
        async def test_both({order}):
            assert tdd_test_context.database is tdd_database
            assert os.environ["DATABASE_URL"] == tdd_database.url
            await tdd_test_context.connection.execute("INSERT INTO entry (what) VALUES ('x')")
            with tdd_database.connect_psycopg() as connection:
                assert connection.execute("SELECT count(*) FROM entry").fetchone() == (1,)

        @pytest.mark.tdd(isolation="{isolation}")
        async def test_the_variables_are_there(tdd_test_context):
            assert os.environ["DATABASE_URL"] == os.environ["OTHER_URL"] == tdd_test_context.database.url

        def test_afterwards(looks_as_made): pass
        """,
        "-p",
        "no:randomly",
    )
    outcome.assert_outcomes(passed=3).assert_says("databases 3 tests with a database")


LEAKING = """
    kept = []

    async def test_leaks(tdd_database):
        connection = await tdd_database.connect()
        await connection.execute("INSERT INTO entry (what) VALUES ('kept')")
        kept.append(connection)

    def test_next(looks_as_made): pass
"""


def test_a_session_left_behind_is_ended_and_named(shop):
    outcome = shop.run(LEAKING, "--tdd-leaks=error", "-p", "no:randomly")
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.assert_says(
        "ConnectionLeak: 1 session left in the database of test_it.py::test_leaks:",
        "opened at test_it.py:5",
        "idle",
        "last statement: INSERT INTO entry (what) VALUES ('kept')",
        "--tdd-leaks=error|warn|ignore",
    )


def test_a_leak_of_a_test_that_failed_is_no_second_failure(shop):
    """It may not have come to where it closes what it opened."""
    outcome = shop.run(
        """
        async def test_fails(tdd_database):
            connection = await tdd_database.connect()
            assert await connection.fetchval("SELECT 1") == 2
            await connection.close()
        """,
        "--tdd-leaks=error",
    )
    outcome.assert_outcomes(failed=1).assert_says("left behind by test_it.py::test_fails")


def test_a_connection_that_is_entered_is_closed(shop):
    outcome = shop.run(
        """
        import pytest

        async def test_entered(tdd_database):
            async with tdd_database.connect(timeout=5) as connection:
                assert await connection.fetchval("SELECT count(*) FROM account") == 2
            assert connection.is_closed()
            with pytest.raises(ZeroDivisionError):
                async with tdd_database.connect() as connection:
                    1 / 0
            assert connection.is_closed()
        """,
        "--tdd-leaks=error",
    )
    outcome.assert_outcomes(passed=1)


def test_lists_may_be_lists_in_pyproject(shop):
    shop.pytester.path.joinpath("tox.ini").unlink()
    shop.file("more.sql", "INSERT INTO account VALUES ('Cid', 5)")
    shop.file(
        "pyproject.toml",
        """
        [tool.pytest.ini_options]
        asyncio_default_fixture_loop_scope = "function"
        tdd_schema_sql = ["schema.sql", "more.sql"]
        tdd_database_env = ["DATABASE_URL"]
        """,
    )
    outcome = shop.run(
        """
        import os

        def test_three(tdd_database):
            assert os.environ["DATABASE_URL"] == tdd_database.url
            with tdd_database.connect_psycopg() as connection:
                assert connection.execute("SELECT count(*) FROM account").fetchone() == (3,)
        """
    )
    outcome.assert_outcomes(passed=1)


def test_a_warning_of_a_leak_has_the_line_of_the_test(shop):
    outcome = shop.run(LEAKING, "-p", "no:randomly", warnings_are_errors=False)
    outcome.assert_outcomes(passed=2, warnings=1)
    outcome.assert_says("test_it.py:4: ConnectionLeakWarning: 1 session left", "way out: close it")


def test_leaks_may_be_ignored(shop):
    shop.run(LEAKING, "--tdd-leaks=ignore", "-p", "no:randomly").assert_outcomes(passed=2)


def test_what_was_written_and_how_it_was_undone_can_be_seen(shop):
    outcome = shop.run(
        """
        def test_it(tdd_database):
            with tdd_database.connect_psycopg() as connection:
                connection.execute("INSERT INTO entry (what) VALUES ('x')")
            assert False
        """,
        "--tdd-explain-reset=true",
        "-rA",
    )
    outcome.assert_says(
        "dataflow-tdd explain",
        "test test_it.py::test_it",
        "public.entry: Heap/INSERT",
        "plan delete the rows at 1 places of public.entry",
        "set public.entry_id_seq back to 1",
    )


def test_a_schema_in_python_overrides_the_options(shop):
    shop.conftest(
        """
        import pytest
        from dataflow.testing.tdd_support import PythonFunction, SqlFiles, Steps

        async def more(connection):
            await connection.execute("CREATE TABLE more (id int)")

        @pytest.fixture(scope="session")
        def tdd_schema(request):
            return Steps(SqlFiles(request.config.rootpath / "schema.sql"), PythonFunction(more))
        """
    )
    shop.run(
        """
        def test_database(tdd_database):
            with tdd_database.connect_psycopg() as connection:
                assert connection.execute("SELECT count(*) FROM account, more").fetchone() == (0,)

        async def test_rollback(tdd_test_context):
            assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM more") == 0
        """
    ).assert_outcomes(passed=2)


def test_a_schema_that_fails_is_told_with_its_line(shop):
    shop.file("schema.sql", "CREATE TABLE a (id int);\nCREATE TABLE b (id nothing);")
    outcome = shop.run("def test_it(tdd_database): pass\nasync def test_too(tdd_test_context): pass")
    outcome.assert_outcomes(errors=2)
    outcome.assert_says("SchemaFailed", "schema.sql", "line 2", 'type "nothing" does not exist')
    assert outcome.text.count("statement: CREATE TABLE b") == 1  # the first test has it all
    outcome.assert_says("(more at the first test that needed it)")


def test_workers_share_the_template_and_nothing_else(shop):
    shop.file("schema.sql", f"{SCHEMA}\n-- {shop.pytester.path}")
    outcome = shop.run(
        """
        import pytest

        @pytest.mark.parametrize("n", range(30))
        def test_it(looks_as_made, tdd_database, n):
            with tdd_database.connect_psycopg() as connection:
                connection.execute("DELETE FROM account")
                connection.execute("INSERT INTO entry (what) VALUES ('x')")
        """,
        "-p",
        "no:cacheprovider",
        "-n",
        "3",
        plain=False,
    )
    outcome.assert_outcomes(passed=30).assert_says("databases 30 tests with a database")


def test_without_a_schema_the_database_is_empty(project):
    project.run(
        """
        import pytest

        @pytest.mark.parametrize("n", range(2))
        async def test_it(tdd_database, n):
            connection = await tdd_database.connect()
            await connection.execute("CREATE TABLE thing (id int)")
            await connection.close()
        """
    ).assert_outcomes(passed=2)


def test_the_urls_of_libraries(shop):
    pytest.importorskip("sqlalchemy")
    shop.run(
        """
        from sqlalchemy import create_engine, text
        from sqlalchemy.ext.asyncio import create_async_engine

        def test_psycopg(tdd_database):
            engine = create_engine(tdd_database.sqlalchemy_url("psycopg"))
            with engine.begin() as connection:
                assert connection.execute(text("SELECT count(*) FROM account")).scalar() == 2
            engine.dispose()

        async def test_asyncpg(tdd_database):
            engine = create_async_engine(tdd_database.sqlalchemy_url())
            async with engine.begin() as connection:
                assert (await connection.execute(text("SELECT count(*) FROM account"))).scalar() == 2
            await engine.dispose()
        """,
        warnings_are_errors=False,
    ).assert_outcomes(passed=2)


def test_the_environment_is_as_before_also_after_a_test_that_changed_it(shop):
    shop.run(
        """
        import os
        import pytest

        def test_that_sets_it(monkeypatch, tdd_database):
            monkeypatch.setenv("DATABASE_URL", "elsewhere")

        def test_that_deletes_it(tdd_database):
            del os.environ["DATABASE_URL"]

        @pytest.mark.tdd(isolation="database")
        async def test_of_a_context_that_commits(tdd_test_context):
            assert os.environ["DATABASE_URL"] == os.environ["OTHER_URL"] == tdd_test_context.database.url

        def test_it():
            assert not {"DATABASE_URL", "OTHER_URL"} & set(os.environ)
        """
    ).assert_outcomes(passed=4)


def test_a_forked_child_that_goes_on_with_the_tests_keeps_off_its_parents_databases(shop):
    outcome = shop.run(
        """
        import os, pytest

        @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads
        def test_that_forks(looks_as_made, tdd_database):
            child = os.fork()
            if child == 0:
                raise RuntimeError("not caught")
            os.waitpid(child, 0)

        def test_next(looks_as_made, tdd_database):
            with tdd_database.connect_psycopg() as connection:
                connection.execute("DELETE FROM account")

        def test_after_it(looks_as_made): pass
        """,
        warnings_are_errors=False,
    )
    outcome.assert_outcomes(passed=3)
    outcome.assert_says("test_next runs in a forked child, and the databases are those of its parent")


def test_each_rollback_test_says_why_there_are_no_tables(shop):
    shop.file("schema.sql", "CREATE TABLE account (id nothing);")
    outcome = shop.run(
        """
        import pytest

        @pytest.mark.parametrize("n", range(3))
        async def test_it(tdd_test_context, n): pass
        """
    )
    outcome.assert_outcomes(errors=3)
    assert outcome.text.count("\nSchemaFailed: the schema could not be built: schema.sql, line 1") == 3


@pytest.fixture
def two_schemas(shop):
    """A folder whose `tdd_schema` has the table `left`, and one where it has `right`."""
    for name in ("left", "right"):
        shop.file(f"{name}/__init__.py", "")
        shop.file(f"{name}/{name}.sql", f'CREATE TABLE "{name}" (id int);')
        shop.file(
            f"{name}/conftest.py",
            f"""
            import pathlib
            import pytest
            from dataflow.testing.tdd_support import SqlFiles

            @pytest.fixture(scope="session")
            def tdd_schema():
                return SqlFiles(pathlib.Path(__file__).with_name("{name}.sql"))
            """,
        )
    return shop


def test_tests_that_commit_have_the_schema_of_their_folder(two_schemas):
    for name in ("left", "right"):
        two_schemas.file(
            f"{name}/test_{name}.py",
            f"""
            import pytest

            def test_database(tdd_database):
                with tdd_database.connect_psycopg() as connection:
                    connection.execute('TABLE "{name}"')

            @pytest.mark.tdd(isolation="database")
            async def test_context(tdd_test_context):
                await tdd_test_context.connection.execute('TABLE "{name}"')
            """,
        )
    two_schemas.run().assert_outcomes(passed=4)


def test_tests_that_are_rolled_back_have_one_schema_and_are_told_so(two_schemas):
    for name in ("left", "right"):
        two_schemas.file(
            f"{name}/test_{name}.py",
            f"""
            async def test_it(tdd_test_context):
                await tdd_test_context.connection.execute('TABLE "{name}"')

            async def test_once_more(tdd_test_context): pass
            """,
        )
    outcome = two_schemas.run().assert_outcomes(passed=2, errors=2)
    outcome.assert_says(
        "SchemaFailed: a test that is rolled back asks for the schema right.sql, "
        "and earlier ones in this process were given left.sql"
    )
