"""What readers of the troubleshooting guide write: each of its recipes, in a project of its own."""

from __future__ import annotations

import pytest

CONFTEST = """
    import asyncio
    import gc
    import os
    import warnings

    import asyncpg
    import pytest

    os.environ["DATAFLOW_TDD_MODE"] = "true"

    from dataflow.testing.tdd_support import (
        TDDTestContext,
        get_database_manager,
        is_tdd_mode,
        setup_tdd_infrastructure,
        tdd_test_context,
        teardown_tdd_infrastructure,
    )

    pytest_plugins = ["dataflow.testing.tdd_support"]
    assert is_tdd_mode()

    @pytest.fixture(scope="session", autouse=True)
    async def tdd_session():
        await setup_tdd_infrastructure()
        yield
        await teardown_tdd_infrastructure()

    @pytest.fixture
    async def own_managed_connection():
        manager = get_database_manager()
        context = TDDTestContext()
        connection = None
        try:
            connection = await manager.get_test_connection(context)
            yield connection
        finally:
            if connection:
                await manager.cleanup_test_connection(context)

    @pytest.fixture(scope="session")
    async def own_pool(tdd_database_url):
        pool = await asyncpg.create_pool(
            tdd_database_url, min_size=3, max_size=8, command_timeout=5, server_settings={"jit": "off"}
        )
        yield pool
        await pool.close()

    @pytest.fixture
    async def own_clean_connection(tdd_database_url):
        connection = None
        try:
            connection = await asyncpg.connect(tdd_database_url)
            yield connection
        finally:
            if connection and not connection.is_closed():
                await connection.close()

    @pytest.fixture(autouse=True)
    async def detect_connection_leaks():
        manager = get_database_manager()
        before = len(manager.active_connections)
        yield
        leaked = len(manager.active_connections) - before
        if leaked > 0:
            warnings.warn(f"found by hand: {leaked}")

    @pytest.fixture(autouse=True)
    def own_memory_monitor():
        import psutil

        process = psutil.Process()
        before = process.memory_info().rss
        yield
        gc.collect()
        assert process.memory_info().rss - before < 100 * 2**20

    class OwnResourceManager:
        def __init__(self):
            self.allocated_resources = set()
            self.lock = asyncio.Lock()

        async def allocate(self, name):
            async with self.lock:
                if name in self.allocated_resources:
                    return False
                self.allocated_resources.add(name)
                return True

    @pytest.fixture
    async def own_resource_manager():
        manager = OwnResourceManager()
        yield manager
        manager.allocated_resources.clear()
"""
TESTS = """
    import time

    import asyncpg
    import pytest

    from dataflow.testing.tdd_support import (
        TDDTestContext,
        debug_performance,
        get_database_manager,
        get_transaction_manager,
    )

    @pytest.mark.asyncio
    async def test_phases_by_hand(tdd_test_context):
        connection = tdd_test_context.connection
        await connection.execute("CREATE TEMP TABLE test_table (id SERIAL PRIMARY KEY, data TEXT)")
        await connection.execute("INSERT INTO test_table (data) VALUES ('test')")
        assert await connection.fetchval("SELECT COUNT(*) FROM test_table") == 1

    @pytest.mark.asyncio
    @pytest.mark.parametrize("n", [1, 2])
    async def test_templates_and_minimal_data(tdd_test_context, n):
        sql = "CREATE TEMP TABLE {name} (id SERIAL, name TEXT, email TEXT)".format(name="users")
        await tdd_test_context.connection.execute(sql)
        await tdd_test_context.connection.execute("INSERT INTO users (name) VALUES ('a')")
        assert await tdd_test_context.connection.fetchval("SELECT COUNT(*) FROM users") == 1

    @pytest.mark.asyncio
    async def test_pool_figures(tdd_test_context):
        pool = get_database_manager().connection_pool
        assert 0 <= pool.get_min_size() < pool.get_max_size()
        assert 1 <= pool.get_size() <= pool.get_max_size()
        assert pool.get_idle_size() == pool.get_size() - 1

    @pytest.mark.asyncio
    async def test_managed_connection(own_managed_connection, managed_connection):
        assert await own_managed_connection.fetchval("SELECT 1") == 1
        assert await managed_connection.fetchval("SELECT pg_backend_pid()") != (
            await own_managed_connection.fetchval("SELECT pg_backend_pid()")
        )

    @pytest.mark.asyncio
    async def test_plain_pool_and_connection(own_pool, own_clean_connection):
        assert await own_pool.fetchval("SHOW jit") == "off"
        assert (own_pool.get_min_size(), own_pool.get_max_size()) == (3, 8)
        await own_clean_connection.close()

    @pytest.mark.asyncio
    async def test_robust_savepoint():
        manager, transactions = get_database_manager(), get_transaction_manager()
        await manager.initialize()
        context = TDDTestContext()
        try:
            connection = await manager.get_test_connection(context)
            await transactions.begin_test_transaction(connection, context)
            await connection.execute("CREATE TABLE gone (id int)")
            await transactions.end_test_transaction(connection, context)
            assert await connection.fetchval("SELECT to_regclass('gone')") is None
        finally:
            await manager.cleanup_test_connection(context)

    @pytest.mark.asyncio
    @pytest.mark.parametrize("statement", ["ROLLBACK TO SAVEPOINT {}", "ROLLBACK"])
    async def test_manual_recovery(tdd_test_context, statement):
        context, connection = tdd_test_context, tdd_test_context.connection
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.execute("BEGIN; SELECT * FROM nowhere")
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await connection.execute("SELECT 1")
        await connection.execute(statement.format(context.savepoint_name))
        assert await connection.fetchval("SELECT 1") == 1

    @pytest.mark.asyncio
    async def test_transaction_figures(tdd_test_context):
        connection = tdd_test_context.connection
        assert await connection.fetchval("SELECT txid_current_if_assigned()") is None
        state = "SELECT state FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        assert await connection.fetchval(state) in ("active", "idle in transaction")

    @pytest.mark.asyncio
    @pytest.mark.parametrize("n", range(3))
    async def test_parallel_safe(tdd_parallel_safe, n):
        context, unique_id = tdd_parallel_safe
        prefix, digits = unique_id.split("_")
        assert prefix == "parallel" and len(digits) == 12 and int(digits, 16) >= 0
        await context.connection.execute(f"CREATE TEMP TABLE test_table_{digits} (id SERIAL PRIMARY KEY)")

    @pytest.mark.asyncio
    async def test_resources(own_resource_manager, resource_manager):
        for manager in (own_resource_manager, resource_manager):
            assert await manager.allocate("port")
            assert not await manager.allocate("port")
        await resource_manager.release("port")
        assert await resource_manager.allocate("port")

    @pytest.mark.asyncio
    async def test_status_by_hand():
        manager = get_database_manager()
        await manager.initialize()
        context = TDDTestContext()
        connection = await manager.get_test_connection(context)
        assert await connection.fetchval("SELECT 1") == 1
        await manager.cleanup_test_connection(context)
        assert get_transaction_manager() is get_transaction_manager()

    @pytest.mark.asyncio
    @debug_performance
    async def test_with_performance_debug(tdd_test_context):
        assert tdd_test_context.connection

    @debug_performance
    def test_performance_of_a_plain_test(memory_monitor):
        pass
"""


@pytest.mark.parametrize("scope", ["function", "session"])
def test_a_conftest_with_all_recipes_of_the_guide_works(project, scope):
    """Strict warnings: nothing that the guide recommends may warn."""
    project.ini(
        asyncio_mode="auto", asyncio_default_fixture_loop_scope=scope, asyncio_default_test_loop_scope=scope
    )
    text = CONFTEST
    if scope == "function":  # its wide fixtures need the loop of their own scope
        text = text.replace('(scope="session"', '(loop_scope="session", scope="session"')
        text = text.replace("@pytest.fixture(loop", "@pytest_asyncio.fixture(loop")
        text = text.replace("    import pytest\n", "    import pytest\n    import pytest_asyncio\n", 1)
        tests = TESTS.replace("    async def test_plain_pool", "    async def skip_plain_pool")
        expected = 16
    else:
        tests, expected = TESTS, 17
    project.env.setenv("DATAFLOW_TDD_POOL_SIZE", "4")
    project.conftest(text)
    outcome = project.run(tests, "-s").assert_outcomes(passed=expected)
    outcome.assert_says(
        "test_with_performance_debug: ", "ms (target 100 ms)", "test_performance_of_a_plain_test: "
    )


def test_the_guides_leak_fixture_and_ours_agree(project):
    project.conftest(CONFTEST)
    project.session_loops()
    outcome = project.run(
        """
        from dataflow.testing.tdd_support import TDDTestContext, get_database_manager

        async def test_forgets():
            await get_database_manager().get_test_connection(TDDTestContext())

        async def test_next(tdd_test_context):
            assert len(get_database_manager().active_connections) == 1
        """,
        warnings_are_errors=False,
    )
    outcome.assert_outcomes(passed=2, warnings=2)
    outcome.assert_says("found by hand: 1", "1 connection not given back by test_it.py::test_forgets")


def test_settings_for_ci_made_at_run_time_are_honoured(project):
    """The guide sets the environment in a function that is called after plugins were loaded."""
    project.env.setenv("GITLAB_CI", "true")
    project.conftest(
        """
        import logging
        import os

        def configure_for_ci():
            if any(os.getenv(name) for name in ["CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS"]):
                os.environ["DATAFLOW_TDD_POOL_SIZE"] = "4"
                os.environ["DATAFLOW_TDD_TIMEOUT"] = "16"
                os.environ["DATAFLOW_TDD_MAX_CONNECTIONS"] = "11"
                logging.getLogger("dataflow.testing").setLevel(logging.DEBUG)

        def pytest_collection_finish():
            configure_for_ci()
        """
    )
    outcome = project.run(
        """
        from dataflow.testing.tdd_support import get_database_manager

        async def test_it(tdd_test_context, tdd_settings):
            assert get_database_manager().connection_pool.get_max_size() == 4
            assert (tdd_settings.timeout, tdd_settings.max_connections) == (16, 11)
        """,
        "--tdd-server-idle=600",
        "-v",  # its header shows the settings as they were before
    )
    outcome.assert_outcomes(passed=1).assert_says("DATAFLOW_TDD_POOL_SIZE: pool_size 4")


def test_activation_in_a_test_module_works(project):
    """The guide sets the variable at the top of a file, before or after importing our names."""
    project.run(
        """
        from dataflow.testing.tdd_support import is_tdd_mode
        import os

        assert not is_tdd_mode()
        os.environ["DATAFLOW_TDD_MODE"] = "true"
        assert is_tdd_mode(), "TDD mode should be enabled"

        async def test_it(tdd_test_context):
            assert is_tdd_mode()
        """
    ).assert_outcomes(passed=1)


def test_built_in_recipes(project):
    """What the guide makes users write, as fixtures that are there: pool, connections, templates, resources."""
    outcome = project.run(
        """
        import pytest

        released = []

        async def test_fast_pool(fast_connection_pool):
            assert await fast_connection_pool.fetchval("SHOW jit") == "off"
            async with fast_connection_pool.acquire() as connection:
                await connection.execute("CREATE TABLE committed (id int)")

        async def test_clean_connection_commits(clean_connection, managed_connection):
            assert not clean_connection.is_in_transaction()
            assert not managed_connection.is_in_transaction()
            await clean_connection.execute("DROP TABLE committed")
            assert await managed_connection.fetchval("SELECT to_regclass('committed')") is None

        async def test_clean_connection_may_be_closed_by_the_test(clean_connection):
            await clean_connection.close()

        @pytest.mark.parametrize("n", range(2))
        async def test_templates(tdd_test_context, schema_templates, n):
            schema_templates.register("tag", "word TEXT UNIQUE")
            connection = tdd_test_context.connection
            for template in ("simple_user", "simple_order", "tag"):
                table = await schema_templates.create(connection, template, 'my "' + template)
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0

        async def test_resources_are_released_after_a_failure(resource_manager):
            async def give_back():
                released.append("port")
            assert await resource_manager.allocate("port", give_back)
            raise RuntimeError("the test fails")

        async def test_they_were(resource_manager):
            assert released == ["port"]
            assert resource_manager.allocated_resources == frozenset()
            await resource_manager.allocate("folder", lambda: 1 / 0)

        def test_settings_and_url(tdd_settings, tdd_database_url, tdd_runtime):
            assert tdd_settings.pool_size >= 1 and tdd_runtime.settings is tdd_settings
            assert tdd_database_url.startswith("postgresql://dataflow_test")
        """
    )
    outcome.assert_outcomes(passed=7, failed=1, errors=1)
    outcome.assert_says("ResourceError: releasing failed for folder: ZeroDivisionError", "RuntimeError: the test")
