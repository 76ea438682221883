"""The summary at the end of a run."""

from __future__ import annotations

import re

import pytest

TESTS = """
    import pytest

    @pytest.mark.parametrize("n", range(3))
    async def test_quick(tdd_test_context, n):
        await tdd_test_context.connection.execute("CREATE TABLE quick (n int)")

    async def test_slow_data(tdd_test_context):
        await tdd_test_context.connection.execute("SELECT pg_sleep(0.15)")

    async def test_slow_schema(tdd_test_context):
        await tdd_test_context.connection.execute("DO 'BEGIN PERFORM pg_sleep(0.15); END'")

    def test_without(): pass
"""


@pytest.mark.parametrize("quiet", [(), ("-q",), ("-qq",)])
@pytest.mark.usefixtures("ask")  # whoever asks keeps the server running
def test_it_tells_server_settings_figures_targets_and_what_is_not_proven(project, quiet):
    project.session_loops()
    project.env.setenv("DATAFLOW_TDD_POOL_SIZE", "4")
    outcome = project.run(TESTS, *quiet, "--tdd-timeout=9", "--tdd-leaks=warn")
    assert outcome.result.ret == 0
    outcome.assert_says(
        "DataFlow TDD",
        "server embedded PostgreSQL 18",
        "was running; ready in",
        "DATAFLOW_TDD_POOL_SIZE: pool_size 4",
        "--tdd-timeout: timeout 9.0",
        "tests 5 median p95 target",
        "isolation proven for 5 of 5 tests: rolled back",
    )
    for phase, target in (("set-up", 20), ("schema", 20), ("data", 30), ("total", 100)):
        assert re.search(rf"{phase} +\d+\.\d\d ms +\d+\.\d\d ms +{target} ms  (ok|over)", outcome.text)
    assert re.search(r"tear-down +\d+\.\d\d ms +\d+\.\d\d ms\n", outcome.text)
    assert re.search(r"data +\d+\.\d\d ms +[1-9]\d\d+\.\d\d ms +30 ms  over", outcome.text)
    outcome.assert_silent_about("slow 100")  # a default is no news


def test_it_tells_which_server_was_tried_before(project):
    with project.nobody_at_the_default_address() as address:
        outcome = project.run(TESTS).assert_outcomes(passed=6)
    outcome.assert_says("server embedded", f"not used: {address} (the default address): connection refused")


def test_slow_tests_are_named_with_advice_for_the_phase_that_is_over(project):
    project.session_loops()
    outcome = project.run(TESTS)
    outcome.assert_says("slow tests over a target, the slowest first:")
    named = re.split(r"\n +(?=test_it\.py::)", outcome.text)
    advice = {text.split(":")[2]: text for text in named[1:]}
    assert "data operations are slow: look at the queries" in advice["test_slow_data"]
    assert "schema work is slow: create tables once" in advice["test_slow_schema"]
    assert "schema work" not in advice["test_slow_data"]
    assert "data operations" not in advice["test_slow_schema"]
    assert re.search(r"slowest statement, 1\d\d ms: SELECT pg_sleep", advice["test_slow_data"])


SLOW = "SELECT pg_sleep(0.15)"


def test_a_slow_statement_is_named_on_whatever_connection_it_runs(project):
    project.session_loops()
    outcome = project.run(f"""
        async def test_pool(tdd_test_context):
            await tdd_test_context.pool.fetchval("{SLOW}, 'pool'")

        async def test_prepared(tdd_test_context):
            statement = await tdd_test_context.connection.prepare("{SLOW}, 'prepared'")
            await statement.fetch()

        async def test_in_a_loop(tdd_test_context):
            await (await tdd_test_context.connect_psycopg()).execute("{SLOW}, 'psycopg in a loop'")

        def test_psycopg(tdd_psycopg):
            tdd_psycopg.connection.execute("{SLOW}, 'psycopg'")

        def test_session(tdd_session):
            from sqlalchemy import text

            tdd_session.execute(text("{SLOW}, 'sqlalchemy'"))
    """)
    outcome.assert_outcomes(passed=5)
    for name in ("pool", "prepared", "psycopg in a loop", "psycopg", "sqlalchemy"):
        assert re.search(rf"slowest statement, 1\d\d ms: SELECT pg_sleep\(0\.15\), '{name}'", outcome.text), name


def test_slow_tests_are_not_named_when_that_is_switched_off(project):
    project.session_loops()
    project.run(TESTS, "--tdd-slow=0").assert_says("tests 5").assert_silent_about("over a target")


def test_the_last_line_is_still_pytests(project):
    outcome = project.run(TESTS)
    assert re.fullmatch(r"=+ 6 passed in .* =+", outcome.result.outlines[-1])


def test_a_run_that_could_reach_no_server_has_no_figures(project):
    project.database("postgresql://me:x@localhost:1/app_test")
    outcome = project.run(TESTS).assert_outcomes(passed=1, errors=5)
    outcome.assert_silent_about("isolation  ", "median")


def test_a_connection_outside_the_sandbox_is_not_called_rolled_back(project):
    """What a managed connection commits stays; the summary must not count such a test as isolated."""
    outcome = project.run(
        """
        async def test_commits(managed_connection):
            await managed_connection.execute("CREATE TABLE stays (n int)")

        async def test_isolated(tdd_test_context): pass
        """
    )
    outcome.assert_outcomes(passed=2).assert_says("isolation proven for 1 of 1 tests: rolled back")
    outcome.assert_says("1 used a connection outside of it")


def test_an_explicit_commit_is_not_called_rolled_back(project):
    outcome = project.run(
        """
        from dataflow.testing.tdd_support import get_transaction_manager

        async def test_commits(tdd_test_context):
            context = tdd_test_context
            await context.connection.execute("CREATE TABLE stays (n int)")
            await get_transaction_manager().end_test_transaction(context.connection, context, rollback=False)

        async def test_isolated(tdd_test_context):
            assert await tdd_test_context.connection.fetchval("SELECT to_regclass('stays')") is not None
        """
    )
    outcome.assert_outcomes(passed=2).assert_says("isolation proven for 1 of 1 tests: rolled back")
    outcome.assert_says("1 used a connection outside of it")


def test_what_copy_wrote_outside_of_a_transaction_is_not_called_rolled_back(project):
    outcome = project.run(
        """
        async def test_it(managed_connection):
            await managed_connection.execute("CREATE TABLE copied (id int)")

        async def test_copies(managed_connection):
            await managed_connection.copy_records_to_table("copied", records=[(1,)])
        """
    ).assert_outcomes(passed=2)
    outcome.assert_says("isolation proven for 0 of 0 tests", "2 used a connection outside of it")
