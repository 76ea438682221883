"""Connections that a test kept: named, taken away, and never the next test's problem."""

from __future__ import annotations

import pytest

LEAKING = """
    import pytest
    from dataflow.testing.tdd_support import TDDTestContext, get_database_manager

    manager = get_database_manager()
    kept = []

    async def test_leaks():
        for number in range(2):
            context = TDDTestContext(f"holder {number}")
            connection = await manager.get_test_connection(context)
            await connection.execute("SELECT 'the last of', $1::text, 'x'", str(number)) if number else None
            kept.append((context, connection))

    async def test_next_has_the_whole_pool():
        assert not manager.active_connections
        contexts = [TDDTestContext() for _ in range(2)]
        for context in contexts:
            connection = await manager.get_test_connection(context)
            assert await connection.fetchval("SELECT 1") == 1
        for context in contexts:
            await manager.cleanup_test_connection(context)

    async def test_what_was_kept_is_stale():
        from dataflow.testing.errors import StaleContext
        for context, connection in kept:
            with pytest.raises(StaleContext, match="given back"):
                context.connection
            with pytest.raises(StaleContext, match="holder"):
                await connection.execute("SELECT 1")
"""
ONE_POOL = ("--tdd-pool-size=2", "--tdd-pool-timeout=2")


@pytest.mark.parametrize("loops", ["function", "session"])
def test_as_an_error_it_names_holder_age_and_last_statement(project, loops):
    if loops == "session":
        project.session_loops()
    outcome = project.run(LEAKING, "--tdd-leaks=error", *ONE_POOL)
    outcome.assert_outcomes(passed=3, errors=1).assert_says(
        "ConnectionLeak: 2 connections not given back by test_it.py::test_leaks:",
        "- holder 0 (test_it.py::test_leaks), held for ",
        "s, no statement yet",
        "s, last statement: SELECT 'the last of', $1::text, 'x'",
        "call cleanup_test_connection(context) in a finally block",
        "--tdd-leaks=error|warn|ignore",
        "leaks 2:",
    ).assert_silent_about("Traceback")


def test_as_a_warning_the_test_passes_and_the_warning_can_be_filtered(project):
    project.session_loops()
    outcome = project.run(LEAKING, *ONE_POOL, warnings_are_errors=False)
    outcome.assert_outcomes(passed=3, warnings=1).assert_says(
        "ConnectionLeakWarning: 2 connections not given back by test_it.py::test_leaks", "leaks 2:"
    )
    ignore = "ignore::dataflow.testing.plugin.warnings.ConnectionLeakWarning"
    project.run(None, *ONE_POOL, "-W", ignore, warnings_are_errors=False).assert_outcomes(passed=3)


def test_ignored_it_is_still_taken_away_and_in_the_summary(project):
    project.session_loops()
    project.run(LEAKING, *ONE_POOL, "--tdd-leaks=ignore").assert_outcomes(passed=3).assert_says("leaks 2:")


def test_connections_beside_the_pool_leak_too(project):
    outcome = project.run(
        """
        import pytest
        from dataflow.testing.tdd_support import TDDTestContext, get_database_manager

        @pytest.mark.parametrize("n", range(3))
        async def test_opens(n):
            connection = await get_database_manager().open_connection(TDDTestContext("beside"))
            await connection.execute("SELECT 1")
        """,
        "--tdd-pool-max-overflow=1",
        "--tdd-leaks=error",
    )
    outcome.assert_outcomes(passed=3, errors=3).assert_says("- beside (test_it.py::test_opens[0]), held for")


def test_what_a_wider_fixture_holds_is_no_leak(project):
    project.session_loops()
    outcome = project.run(
        """
        import pytest
        from dataflow.testing.tdd_support import TDDTestContext, get_database_manager, tdd_test_context

        @pytest.fixture(scope="module")
        async def shared():
            async with tdd_test_context("shared by the module") as context:
                await context.connection.execute("CREATE TABLE of_module (n int)")
                yield context

        @pytest.fixture(scope="class")
        async def of_class():
            context = TDDTestContext("of the class")
            yield await get_database_manager().get_test_connection(context)
            await get_database_manager().cleanup_test_connection(context)

        class TestIt:
            @pytest.mark.parametrize("n", range(3))
            async def test_it(self, shared, of_class, n):
                assert await shared.connection.fetchval("SELECT count(*) FROM of_module") == n
                await shared.connection.execute("INSERT INTO of_module VALUES (1)")
                if n == 1:
                    await get_database_manager().get_test_connection(TDDTestContext("leaked beside them"))
        """,
        "--tdd-leaks=error",
        "--tdd-pool-size=3",
    )
    outcome.assert_outcomes(passed=3, errors=1).assert_says("1 connection not given back", "leaks 1:")
    outcome.assert_silent_about("- shared by", "- of the class")


def test_a_leaking_setup_and_a_leaking_failure_are_named_too(project):
    outcome = project.run(
        """
        import pytest
        from dataflow.testing.tdd_support import TDDTestContext, get_database_manager

        @pytest.fixture
        async def leaking():
            await get_database_manager().get_test_connection(TDDTestContext("in set-up"))
            raise RuntimeError("set-up fails")

        async def test_setup(leaking): pass

        async def test_fails():
            await get_database_manager().get_test_connection(TDDTestContext("in the test"))
            assert False, "its own failure"
        """,
        "--tdd-leaks=error",
    )
    outcome.assert_outcomes(failed=1, errors=3).assert_says(
        "set-up fails",
        "its own failure",
        "- in set-up (test_it.py::test_setup)",
        "- in the test (test_it.py::test_f",
    )


def test_passwords_in_statements_are_not_shown(project):
    outcome = project.run(
        """
        from dataflow.testing.tdd_support import TDDTestContext, get_database_manager

        async def test_leaks():
            connection = await get_database_manager().get_test_connection(TDDTestContext())
            await connection.execute("SELECT 'password=hunter2', 'postgresql://a:hunter3@b/c'")
        """,
        "--tdd-leaks=error",
    )
    outcome.assert_outcomes(passed=1, errors=1).assert_says("last statement: SELECT 'password=***")
    outcome.result.stdout.no_fnmatch_line("*- *hunter*")


def test_a_leak_does_not_hide_that_the_tests_own_clean_up_failed(project):
    outcome = project.run(
        """
        import pytest
        from dataflow.testing.tdd_support import TDDTestContext, get_database_manager

        @pytest.fixture
        def breaks():
            yield
            raise RuntimeError("the clean-up of the project failed")

        async def test_it(breaks):
            await get_database_manager().get_test_connection(TDDTestContext("kept"))
        """,
        "--tdd-leaks=error",
        warnings_are_errors=False,
    )
    outcome.assert_outcomes(passed=1, errors=1, warnings=1)
    outcome.assert_says(
        "RuntimeError: the clean-up of the project failed", "kept (test_it.py::test_it), held for"
    )
    assert "ERROR test_it.py::test_it - RuntimeError" in outcome.text


def test_a_connection_of_the_plain_pool_is_missed_too(project):
    project.session_loops()
    outcome = project.run(
        """
        async def test_forgets(fast_connection_pool):
            await fast_connection_pool.acquire()

        async def test_next(fast_connection_pool):
            assert await fast_connection_pool.fetchval("SELECT 1") == 1
        """,
        "--tdd-leaks=error",
        "--tdd-pool-max-overflow=1",
    )
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.assert_says("1 connection not given back by test_it.py::test_forgets:")
