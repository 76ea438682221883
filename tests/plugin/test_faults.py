"""Tests that do what they should not: they are told so, and the next test finds a clean database."""

from __future__ import annotations

import pytest
from tests.waiting import wait_until

SCHEMA = """
    import asyncpg
    import pytest
    import pytest_asyncio

    @pytest_asyncio.fixture(scope="session", loop_scope="session")
    async def schema(tdd_database_url):
        connection = await asyncpg.connect(tdd_database_url)
        await connection.execute("CREATE TABLE item (key text PRIMARY KEY)")
        await connection.close()

    @pytest.fixture(autouse=True)
    async def clean_before(schema, tdd_test_context):
        connection = tdd_test_context.connection
        assert await connection.fetchval("SELECT count(*) FROM item") == 0
        await connection.execute("INSERT INTO item VALUES ('the same in all tests')")
"""
HEAD = """
    import asyncio
    import asyncpg
    import pytest
    from dataflow.testing.errors import ConnectionLost, StaleContext, StatementTimeout, TransactionEnded
"""


@pytest.fixture(params=["function", "session"])
def with_schema(request, project):
    if request.param == "session":
        project.session_loops()
    project.conftest(SCHEMA)
    return project


def test_each_misbehaviour_is_refused_or_undone_and_the_next_test_is_clean(with_schema):
    """Every test here asserts, before it begins, that the one before left no row."""
    outcome = with_schema.run(
        HEAD
        + """
    @pytest.mark.parametrize("words", ["COMMIT", "END", "SELECT 1; COMMIT", "BEGIN; COMMIT", "COMMIT AND CHAIN"])
    async def test_commits(tdd_test_context, words):
        await tdd_test_context.connection.execute("BEGIN; INSERT INTO item VALUES ('committed')")
        await tdd_test_context.connection.execute(words)
        assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM item") == 2

    async def test_prepares_a_transaction(tdd_test_context):
        with pytest.raises(asyncpg.FeatureNotSupportedError):
            await tdd_test_context.connection.execute("BEGIN; PREPARE TRANSACTION 'x'")

    async def test_rolls_back(tdd_test_context):
        await tdd_test_context.connection.execute("BEGIN; INSERT INTO item VALUES ('rolled back'); ROLLBACK")
        assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM item") == 1

    async def test_leaves_an_aborted_transaction(tdd_test_context):
        with pytest.raises(asyncpg.UniqueViolationError):
            await tdd_test_context.connection.execute("BEGIN; INSERT INTO item VALUES ('the same in all tests')")

    async def test_leaves_its_own_transaction_open(tdd_test_context):
        await tdd_test_context.connection.transaction().start()
        await tdd_test_context.connection.execute("INSERT INTO item VALUES ('in it')")

    async def test_closes_its_connection(tdd_test_context):
        await tdd_test_context.connection.close()
        with pytest.raises(ConnectionLost):
            await tdd_test_context.connection.execute("SELECT 1")

    async def test_its_backend_is_terminated(tdd_test_context, clean_connection):
        pid = await tdd_test_context.connection.fetchval("SELECT pg_backend_pid()")
        await clean_connection.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ConnectionLost)):
            for _ in range(100):
                await tdd_test_context.connection.execute("SELECT pg_sleep(0.1)")

    async def test_its_statement_is_cancelled(tdd_test_context):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await tdd_test_context.connection.execute("SELECT pg_sleep(60)")

    async def test_its_statement_is_cancelled_in_a_task(tdd_test_context):
        task = asyncio.create_task(tdd_test_context.connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.05)
        task.cancel()

    async def test_is_over_its_time(tdd_test_context):
        with pytest.raises(StatementTimeout, match="limit 0.2 s.: SELECT pg_sleep") as caught:
            await tdd_test_context.connection.execute("SELECT pg_sleep(60)", timeout=0.2)
        assert "--tdd-timeout" in str(caught.value)

    async def test_last(tdd_test_context): pass
    """,
        "--tdd-pool-size=2",
    )
    outcome.assert_outcomes(passed=15)


@pytest.mark.parametrize("loops", ["function", "session"])
def test_a_task_that_still_uses_the_connection_at_the_end_is_told_and_hurts_nobody(project, loops):
    if loops == "session":
        project.session_loops()
    project.conftest(SCHEMA)
    outcome = project.run(
        HEAD
        + """
    tasks = []

    async def test_background(tdd_test_context):
        tasks.append(asyncio.create_task(tdd_test_context.connection.execute("SELECT pg_sleep(60)")))
        await asyncio.sleep(0.1)

    @pytest.mark.parametrize("n", range(3))
    async def test_next(tdd_test_context, n): pass
    """,
        warnings_are_errors=False,
    )
    assert outcome.result.parseoutcomes()["passed"] == 4
    outcome.assert_says("test_it.py::test_background: its connection was closed, because it was still in use")


def test_the_projects_statement_timeout_is_told_with_the_statement(project):
    outcome = project.run(
        """
        async def test_hangs(tdd_test_context):
            await tdd_test_context.connection.fetch("SELECT pg_sleep(60)")

        async def test_next(tdd_test_context):
            assert await tdd_test_context.connection.fetchval("SELECT 1") == 1
        """,
        "--tdd-timeout=2",
    )
    outcome.assert_outcomes(passed=1, failed=1).assert_says(
        "StatementTimeout: test_it.py::test_hangs: cancelled after ",
        "(limit 2 s): SELECT pg_sleep(60)",
        "DATAFLOW_TDD_TIMEOUT, --tdd-timeout",
    )


@pytest.mark.parametrize("loops", ["function", "session"])
def test_a_test_that_really_got_out_stops_all_later_ones(project, loops):
    """Only by going past the handle can it commit. Then nobody may trust the database any more."""
    if loops == "session":
        project.session_loops()
    outcome = project.run(
        """
        import pytest

        async def test_first(tdd_test_context): pass

        async def test_gets_out(tdd_test_context):
            await tdd_test_context.connection.execute("CREATE TABLE stays (n int)")
            await tdd_test_context.connection.physical.ask("COMMIT")

        @pytest.mark.parametrize("n", range(3))
        async def test_later(tdd_test_context, n): pass

        def test_without(): pass
        """
    )
    outcome.assert_outcomes(passed=3, errors=4).assert_says(
        "TransactionEnded: test_it.py::test_gets_out: it left the transaction that isolates it",
        "DatabaseNotClean: the database may hold rows of an earlier test: test_it.py::test_gets_out",
        "isolation proven for 1 of 2 tests: rolled back",
    ).assert_silent_about("Traceback")


def test_an_exhausted_pool_names_the_holders_and_nothing_hangs(project):
    outcome = project.run(
        """
        from dataflow.testing.tdd_support import TDDTestContext, get_database_manager, tdd_test_context as opened

        async def test_takes_all():
            manager = get_database_manager()
            async with opened("first") as first, opened("second") as second:
                await second.connection.execute("SELECT 'password=hunter2'")
                await manager.get_test_connection(TDDTestContext("third"))

        async def test_next(tdd_test_context):
            assert await tdd_test_context.connection.fetchval("SELECT 1") == 1
        """,
        "--tdd-pool-size=2",
        "--tdd-pool-timeout=2",
    )
    outcome.assert_outcomes(passed=1, failed=1).assert_says(
        "third (test_it.py::test_takes_all): no connection became free within 2 s; all 2 are held by:",
        "- first (test_it.py::test_takes_all), held for ",
        "no statement yet",
        "- second (test_it.py::test_takes_all), held for ",
        "last statement: SELECT 'password=***",
        "DATAFLOW_TDD_POOL_SIZE, --tdd-pool-size",
    )


def test_a_killed_pytest_leaves_nothing_in_the_server_and_no_server(project, make_cache_dir):
    """SIGKILL in the middle of a statement; make_cache_dir waits until the server has stopped by itself."""
    cache = make_cache_dir()
    project.env.setenv("DATAFLOW_TDD_CACHE_DIR", str(cache))
    outcome = project.run(
        """
        import asyncio
        import os
        import signal

        async def test_it(tdd_test_context):
            asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGKILL)
            await tdd_test_context.connection.execute("SELECT pg_sleep(60)")
        """,
        "--tdd-server-idle=0",
    )
    assert outcome.result.ret == -9
    assert list((cache / "servers").iterdir())


def test_a_killed_pytest_leaves_no_database_on_a_server_that_lives_on(project, ask):
    outcome = project.run(
        """
        import os
        import signal
        import sys

        async def test_it(tdd_test_context):
            name = await tdd_test_context.connection.fetchval("SELECT current_database()")
            os.write(2, f"\\ndatabase={name}\\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        "-s",
    )
    assert outcome.result.ret == -9
    (database,) = outcome.marked("database")
    count = f"SELECT count(*) FROM pg_database WHERE datname = '{database}'"
    wait_until(lambda: ask(count) == [(0,)], f"{database} is dropped")
    assert ask(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'") == [(0,)]


def test_interrupting_the_run_gives_everything_back(project, ask):
    """As Ctrl-C does, in the middle of a statement."""
    outcome = project.run(
        """
        import asyncio
        import os
        import signal

        # A shell that runs the suite in the background makes all of it ignore the signal.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        async def test_it(tdd_test_context):
            name = await tdd_test_context.connection.fetchval("SELECT current_database()")
            os.write(2, f"\\ndatabase={name}\\n".encode())
            asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGINT)
            await tdd_test_context.connection.execute("SELECT pg_sleep(60)")
        """,
        "-s",
        warnings_are_errors=False,
    )
    assert outcome.result.ret == pytest.ExitCode.INTERRUPTED
    (database,) = outcome.marked("database")
    count = f"SELECT count(*) FROM pg_database WHERE datname = '{database}'"
    wait_until(lambda: ask(count) == [(0,)], f"{database} is dropped")


def test_closing_everything_in_the_middle_of_a_run_is_no_end(project):
    """teardown_tdd_infrastructure is idempotent, and what comes later starts anew."""
    project.run(
        """
        import pytest
        from dataflow.testing.errors import StaleContext
        from dataflow.testing.tdd_support import teardown_tdd_infrastructure, setup_tdd_infrastructure

        async def test_closes(tdd_test_context):
            await teardown_tdd_infrastructure()
            await teardown_tdd_infrastructure()
            with pytest.raises(StaleContext):
                tdd_test_context.connection

        async def test_next(tdd_test_context):
            await setup_tdd_infrastructure()
            await setup_tdd_infrastructure()
            assert await tdd_test_context.connection.fetchval("SELECT 1") == 1
        """
    ).assert_outcomes(passed=2)


def test_a_forked_child_cannot_close_its_parents_connections(project):
    """Whatever the child ends with: the end of a process, or the project's own teardown."""
    project.session_loops()
    project.run(
        """
        import asyncio
        import os
        import pytest
        from dataflow.testing.runtime import runtime
        from dataflow.testing.tdd_support import teardown_tdd_infrastructure

        def end():
            runtime().release()

        def tear_down():
            asyncio.set_event_loop(None)
            asyncio._set_running_loop(None)
            asyncio.run(teardown_tdd_infrastructure())

        @pytest.mark.parametrize("how", [end, tear_down])
        @pytest.mark.filterwarnings("ignore:.*fork.*")
        async def test_it(tdd_test_context, managed_connection, how):
            child = os.fork()
            if child == 0:
                try:
                    how()
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            await asyncio.sleep(0.1)
            assert await tdd_test_context.connection.fetchval("SELECT 1") == 1
            assert await managed_connection.fetchval("SELECT 1") == 1
        """,
        "--tdd-pool-size=2",
    ).assert_outcomes(passed=2)
