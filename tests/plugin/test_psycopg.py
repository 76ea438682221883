"""Tests with psycopg, in plain tests and in asynchronous ones, in loops of every scope."""

from __future__ import annotations

import pytest

SCOPES = ("function", "class", "module", "package", "session")

SHARING = """
    import pytest

    COUNT = "SELECT count(*) FROM pg_class WHERE relname = 'mine'"

    async def use(context):
        connection = await context.connect_psycopg()
        await connection.execute("CREATE TABLE mine (id int)")
        await connection.commit()
        assert await context.connection.fetchval(COUNT) == 1
        async with context.psycopg_pool.connection() as pooled:
            assert await (await pooled.execute(COUNT)).fetchone() == (1,)
        pid = await context.connection.fetchval("SELECT pg_backend_pid()")
        assert connection.info.backend_pid == pid
        print(f"\\nseen={pid}")

    class TestInClass:
        async def test_one(self, tdd_test_context):
            await use(tdd_test_context)

        async def test_two(self, tdd_test_context):
            await use(tdd_test_context)

    @pytest.mark.parametrize("turn", range(2))
    async def test_others(tdd_test_context, turn):
        await use(tdd_test_context)
"""


@pytest.fixture
def shop(project):
    """A schema with a table `account` that has two rows."""
    project.session_loops(tdd_schema_sql="schema.sql")
    project.file(
        "schema.sql",
        "CREATE TABLE account (name text, balance int); INSERT INTO account VALUES ('a', 1), ('b', 2);",
    )
    return project


@pytest.mark.parametrize("scope", SCOPES)
def test_asynchronous_connections_go_on_in_each_loop(project, scope):
    """With one session of the server for all of them."""
    project.ini(asyncio_mode="auto", asyncio_default_test_loop_scope=scope)
    outcome = project.run(SHARING, "-s").assert_outcomes(passed=4)
    assert len(set(outcome.marked("seen"))) == 1


def test_asynchronous_connections_in_uvloop(project):
    project.ini(asyncio_mode="auto", asyncio_default_test_loop_scope="function")
    project.conftest(
        """
        import uvloop

        def pytest_asyncio_loop_factories(config, item):
            return {"uvloop": uvloop.new_event_loop}
        """
    )
    cancels = """
        import asyncio, pytest

        async def test_cancelling(tdd_test_context):
            assert type(asyncio.get_running_loop()).__module__ == "uvloop"
            connection = await tdd_test_context.connect_psycopg(autocommit=True)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await connection.execute("SELECT pg_sleep(30)")
            assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
    """
    project.file("test_cancelling.py", cancels)
    outcome = project.run(SHARING, "-s", "test_cancelling.py", "test_it.py").assert_outcomes(passed=5)
    assert len(set(outcome.marked("seen"))) == 1


def test_in_a_database_of_the_test_asynchronous_connections_commit(shop):
    shop.run(
        """
        import pytest

        @pytest.mark.tdd(isolation="database")
        @pytest.mark.parametrize("turn", range(2))
        async def test_commits(tdd_test_context, tdd_database, turn):
            async with await tdd_test_context.connect_psycopg() as connection:
                await connection.execute("INSERT INTO account VALUES ('x', 1)")
            async with tdd_test_context.psycopg_pool.connection() as connection:
                cursor = await connection.execute("SELECT count(*) FROM account")
                assert await cursor.fetchone() == (3,)
            with tdd_database.connect_psycopg() as connection:
                assert connection.execute("SELECT count(*) FROM account").fetchone() == (3,)
        """
    ).assert_outcomes(passed=2)


def test_a_thread_that_outlives_its_test_does_not_reach_the_next_one(shop):
    shop.run(
        """
        import threading

        go_on, over, outcomes = threading.Event(), threading.Event(), []

        def straggle(pool):
            try:
                with pool.connection() as connection:
                    connection.execute("DELETE FROM account")
                    go_on.wait(60)
                    connection.execute("DELETE FROM account")
            except Exception as error:
                outcomes.append(error)
            over.set()

        def test_leaves_a_thread(tdd_psycopg):
            threading.Thread(target=straggle, args=(tdd_psycopg.psycopg_pool,)).start()

        def test_is_not_disturbed(tdd_psycopg):
            count = "SELECT count(*) FROM account"
            assert tdd_psycopg.connection.execute(count).fetchone() == (2,)
            go_on.set()
            assert over.wait(60)
            assert len(outcomes) == 1
            assert tdd_psycopg.connection.execute(count).fetchone() == (2,)
        """,
        "-p",
        "no:randomly",
    ).assert_outcomes(passed=2)


def test_another_schema_is_refused_as_for_asynchronous_tests(shop):
    shop.file("other/other.sql", "CREATE TABLE other (id int)")
    shop.file(
        "other/conftest.py",
        """
        import pytest
        from pathlib import Path
        from dataflow.testing.tdd_support import SqlFiles

        @pytest.fixture(scope="session")
        def tdd_schema():
            return SqlFiles(Path(__file__).parent / "other.sql")
        """,
    )
    shop.file("other/test_other.py", "def test_it(tdd_psycopg): pass")
    shop.file("test_first.py", "def test_it(tdd_psycopg): tdd_psycopg.connection.execute('TABLE account')")
    outcome = shop.run(None, "-p", "no:randomly", "test_first.py", "other")
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.assert_says("SchemaFailed: a test that is rolled back asks for the schema")


def test_without_psycopg_it_is_told_how_to_get_it(project):
    project.ini(asyncio_mode="auto")
    project.run("def test_that_starts_the_server(tdd_database_url): pass").assert_outcomes(passed=1)
    project.conftest("import sys; sys.modules['psycopg'] = None")
    outcome = project.run(
        """
        import asyncpg, pytest
        from dataflow.testing.errors import MissingLibrary

        def test_plain(tdd_psycopg): pass

        async def test_asynchronous(tdd_test_context):
            with pytest.raises(MissingLibrary, match="psycopg cannot be imported"):
                await tdd_test_context.connect_psycopg()

        async def test_beside_others(tdd_test_context, tdd_database_url):
            other = await asyncpg.connect(tdd_database_url)
            await other.execute("CREATE TABLE beside (id int)")
            await other.close()
        """
    ).assert_outcomes(passed=2, errors=1)
    outcome.assert_says("psycopg, which would read where, cannot be imported")
    outcome.assert_says("MissingLibrary: psycopg cannot be imported", 'pip install "dataflow-tdd[psycopg]"')
    outcome.assert_silent_about("Traceback")


def test_psycopg_tests_are_rolled_back_or_commit_in_a_database_of_their_own(shop):
    """The schema's tables are there; nothing of a test reaches the next one."""
    outcome = shop.run(
        """
        import psycopg, pytest

        @pytest.mark.parametrize("n", range(3))
        def test_rolled_back(tdd_psycopg, n):
            connection = tdd_psycopg.connection
            assert connection.execute("SELECT count(*) FROM account").fetchone() == (2,)
            connection.execute("INSERT INTO account VALUES ('x', 1)")
            connection.commit()
            assert tdd_psycopg.connect().execute("SELECT count(*) FROM account").fetchone() == (3,)

        @pytest.mark.tdd(isolation="database")
        def test_commits(tdd_psycopg, tdd_database):
            assert tdd_psycopg.database is tdd_database
            with tdd_psycopg.connect() as connection:
                connection.execute("INSERT INTO account VALUES ('x', 1)")
            with psycopg.connect(tdd_database.url) as other:
                assert other.execute("SELECT count(*) FROM account").fetchone() == (3,)
        """
    )
    outcome.assert_outcomes(passed=4)
