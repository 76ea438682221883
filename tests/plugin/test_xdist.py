"""pytest-xdist: one server, a database per worker, one summary."""

from __future__ import annotations

import pytest
from tests.waiting import wait_until

PARALLEL = ("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:rerunfailures")

SCHEMA = """
    import asyncpg
    import pytest

    @pytest.fixture(scope="session")
    async def schema(tdd_database_url):
        connection = await asyncpg.connect(tdd_database_url)
        await connection.execute("CREATE TABLE item (key text PRIMARY KEY)")
        await connection.close()
"""
SAME_KEY = """
    import os
    import pytest

    @pytest.mark.parametrize("n", range(20))
    async def test_the_same_key(schema, tdd_parallel_safe, n):
        context, unique = tdd_parallel_safe
        connection = context.connection
        await connection.execute("INSERT INTO item VALUES ('the same in all tests')")
        await connection.execute("CREATE TABLE same_name (id int)")
        await connection.execute("SELECT pg_advisory_lock(1)")
        assert await connection.fetchval("SELECT count(*) FROM item") == 1
        row = await connection.fetchrow(
            "SELECT current_database() AS database, pg_postmaster_start_time()::text AS server"
        )
        seen = (os.environ["PYTEST_XDIST_WORKER"], row["database"], row["server"], unique)
        with open(os.environ["SEEN"], "a") as file:
            file.write("|".join(seen) + "\\n")
"""


@pytest.mark.parametrize("distribution", ["cold, -n 4", "loadscope"])
def test_workers_share_a_server_and_nothing_else(project, tmp_path, ask, make_cache_dir, distribution):
    """In the first case the server does not run yet, and all workers need it in the same instant."""
    arguments, workers = ("-n", "2", "--dist", "loadscope"), 2
    if distribution != "loadscope":
        project.env.setenv("DATAFLOW_TDD_CACHE_DIR", str(make_cache_dir()))
        arguments, workers = ("-n", "4", "--tdd-server-idle=0"), 4
    project.env.setenv("SEEN", str(tmp_path / "seen"))
    project.session_loops()
    project.conftest(SCHEMA)
    for name in ("a", "b"):
        project.file(f"test_{name}.py", SAME_KEY)
    outcome = project.run(None, *PARALLEL, *arguments, plain=False).assert_outcomes(passed=40)
    seen = [line.split("|") for line in (tmp_path / "seen").read_text().splitlines()]
    names, databases, servers, unique = (set(column) for column in zip(*seen, strict=True))
    assert len(servers) == 1
    assert len(names) == workers
    assert len(databases) == len({(name, database) for name, database, *_ in seen}) == workers
    assert len(unique) == 40
    outcome.assert_says("tests 40 median", "isolation proven for 40 of 40 tests: rolled back")
    assert outcome.text.count("DataFlow TDD") == 1
    if distribution == "loadscope":  # in the other case the server has gone, and its databases with it
        wait_until(
            lambda: databases.isdisjoint(name for (name,) in ask("SELECT datname FROM pg_database")),
            "the workers' databases are dropped",
        )


def test_a_worker_that_crashed_is_named_in_the_summary(project):
    project.session_loops()
    outcome = project.run(
        """
        import os
        import signal
        import pytest

        @pytest.mark.parametrize("n", range(6))
        async def test_it(tdd_test_context, n):
            if n == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        """,
        *PARALLEL,
        "-n",
        "2",
        plain=False,
        warnings_are_errors=False,
    )
    outcome.assert_outcomes(passed=5, failed=1)
    outcome.assert_says("lost worker gw", "crashed; its tests are missing in these figures")


def test_leaks_are_told_by_workers_as_without_them(project):
    tests = """
        from dataflow.testing.tdd_support import TDDTestContext, get_database_manager

        async def test_leaks():
            await get_database_manager().get_test_connection(TDDTestContext("kept"))
    """
    outcome = project.run(tests, *PARALLEL, "-n", "1", "--tdd-leaks=error", plain=False)
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.assert_says("ConnectionLeak: 1 connection not given back", "leaks 1:", "- kept (test_it.py::")


def test_options_reach_workers_and_unused_they_send_nothing(project):
    tests = "async def test_it(tdd_test_context): pass\ndef test_two(): pass"
    outcome = project.run(tests, *PARALLEL, "-n", "2", "--tdd-mode=off", plain=False)
    outcome.assert_outcomes(passed=1, skipped=1).assert_silent_about("DataFlow TDD")
