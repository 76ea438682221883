"""Other plug-ins in the same run: order, time limits, reruns."""

from __future__ import annotations

import pytest
from tests.waiting import wait_until

SCHEMA = """
    import asyncpg
    import pytest

    @pytest.fixture(scope="session")
    async def schema(tdd_database_url):
        connection = await asyncpg.connect(tdd_database_url)
        await connection.execute("CREATE TABLE item (key text PRIMARY KEY)")
        await connection.close()
"""
BASE = ("-p", "no:cacheprovider")


def test_random_order_and_workers_together(project):
    project.session_loops()
    project.conftest(SCHEMA)
    tests = """
        import pytest

        @pytest.mark.parametrize("n", range(30))
        async def test_one(schema, tdd_test_context, n):
            await tdd_test_context.connection.execute("INSERT INTO item VALUES ('x')")

        class TestMore:
            test_two = staticmethod(test_one)
    """
    outcome = project.run(tests, *BASE, "-p", "randomly", "-n", "2", "--timeout=50", plain=False)
    outcome.assert_outcomes(passed=60).assert_says(
        "Using --randomly-seed", "proven for 60 of 60 tests: rolled back"
    )


def test_a_rerun_gets_a_clean_context(project):
    """What the failed attempt wrote, and the state it left its transaction in, is gone."""
    project.session_loops()
    project.conftest(SCHEMA)
    outcome = project.run(
        """
        import pytest

        attempts = []

        @pytest.mark.flaky(reruns=2)
        async def test_flaky(schema, tdd_test_context):
            connection = tdd_test_context.connection
            attempts.append(tdd_test_context)
            assert len({id(context) for context in attempts}) == len(attempts)
            assert await connection.fetchval("SELECT count(*) FROM item") == 0
            await connection.execute("INSERT INTO item VALUES ('x')")
            if len(attempts) < 3:
                await connection.execute("INSERT INTO item VALUES ('x')")

        async def test_next(schema, tdd_test_context):
            assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM item") == 0
        """,
        *BASE,
        "-p",
        "no:randomly",
        plain=False,
    )
    outcome.assert_outcomes(passed=2, rerun=2)
    outcome.assert_says("isolation proven for 2 of 2 tests: rolled back")


@pytest.mark.parametrize("loops", ["function", "session"])
def test_a_test_that_times_out_inside_a_statement_hurts_nobody(project, ask, loops):
    """pytest-timeout's signal method interrupts the event loop in the middle of a statement."""
    if loops == "session":
        project.session_loops()
    project.conftest(
        SCHEMA.replace("    @pytest.fixture(scope", "    @pytest_asyncio.fixture(scope")
        .replace('(scope="session"', '(scope="session", loop_scope="session"')
        .replace("import pytest\n", "import pytest\n    import pytest_asyncio\n", 1)
    )
    outcome = project.run(
        """
        import asyncio
        import pytest

        @pytest.mark.timeout(1, method="signal", func_only=True)
        async def test_hangs(schema, tdd_test_context):
            print("\\ndatabase=" + await tdd_test_context.connection.fetchval("SELECT current_database()"))
            await tdd_test_context.connection.execute("INSERT INTO item VALUES ('x')")
            await tdd_test_context.connection.execute("SELECT pg_sleep(60), 'hangs here'")

        @pytest.mark.parametrize("n", range(3))
        async def test_next(schema, tdd_test_context, n):
            connection = tdd_test_context.connection
            await connection.execute("INSERT INTO item VALUES ('x')")
            assert await connection.fetchval("SELECT count(*) FROM item") == 1
        """,
        *BASE,
        "-p",
        "no:randomly",
        "-s",
        plain=False,
        warnings_are_errors=False,
    )
    outcome.assert_outcomes(passed=3, failed=1, warnings=1).assert_says("Timeout (>1.0s) from pytest-timeout")
    (database,) = outcome.marked("database")
    hanging = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
    wait_until(lambda: ask(hanging) == [(0,)], "the statement was ended with its run")


def test_the_thread_method_ends_the_run_and_nothing_of_it_stays(project, ask):
    """It exits the process; the keeper then takes the database back."""
    outcome = project.run(
        """
        import pytest

        @pytest.mark.timeout(1, method="thread", func_only=True)
        async def test_hangs(tdd_test_context):
            name = await tdd_test_context.connection.fetchval("SELECT current_database()")
            print("\\ndatabase=" + name, flush=True)
            await tdd_test_context.connection.execute("SELECT pg_sleep(60)")
        """,
        *BASE,
        "-p",
        "no:randomly",
        "-s",
        plain=False,
    )
    assert outcome.result.ret == 1
    (database,) = outcome.marked("database")
    gone = f"SELECT count(*) FROM pg_database WHERE datname = '{database}'"
    wait_until(lambda: ask(gone) == [(0,)], f"database {database} is dropped")
