"""The ways to load the fixtures, alone and together; and runs that use none of them."""

from __future__ import annotations

import pytest

USE = """
    import pytest

    @pytest.mark.asyncio
    async def test_use(tdd_test_context):
        assert await tdd_test_context.connection.fetchval("SELECT 1") == 1

    @pytest.mark.asyncio
    async def test_rows_do_not_stay(tdd_test_context):
        connection = tdd_test_context.connection
        assert await connection.fetchval("SELECT to_regclass('kept')") is None
        await connection.execute("CREATE TABLE kept (id int)")

    test_again = test_rows_do_not_stay
"""
BY_PLUGINS = 'pytest_plugins = ["dataflow.testing.tdd_support"]\n'
BY_IMPORT = (
    "from dataflow.testing.tdd_support import setup_tdd_infrastructure, teardown_tdd_infrastructure, "
    "tdd_test_context\n"
)


@pytest.mark.parametrize(
    "conftest",
    ["", BY_PLUGINS, BY_IMPORT, BY_IMPORT + BY_PLUGINS, BY_PLUGINS + BY_IMPORT],
    ids=["entry point", "pytest_plugins", "import", "import, then plugins", "plugins, then import"],
)
def test_each_way_to_load_the_fixtures_works_beside_the_entry_point(project, conftest):
    project.ini(asyncio_mode="strict")
    project.conftest(conftest)
    project.run(USE).assert_outcomes(passed=3)


@pytest.mark.parametrize("name", ["asyncio", "pytest_asyncio.plugin"])
def test_without_autoload_the_guides_plugin_line_is_enough(project, name):
    """PYTEST_DISABLE_PLUGIN_AUTOLOAD also drops our entry point; pytest-asyncio is then named by hand."""
    project.env.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    project.conftest(BY_PLUGINS + BY_IMPORT)
    project.run(USE, "-p", name).assert_outcomes(passed=3).assert_says("DataFlow TDD")


def test_without_autoload_and_pytest_asyncio_the_error_says_what_is_missing(project):
    project.env.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    project.pytester.makeini("[pytest]\n")
    project.conftest(BY_PLUGINS)
    outcome = project.run("def test_use(tdd_test_context): pass", "-p", "no:asyncio")
    outcome.assert_outcomes(errors=1)
    outcome.assert_says("tdd_test_context needs pytest-asyncio, which is not active", "-p pytest_asyncio.plugin")


def test_switching_pytest_asyncio_off_is_told_for_every_asynchronous_fixture(project):
    project.pytester.makeini("[pytest]\n")
    names = (
        "tdd_test_context",
        "tdd_parallel_safe",
        "managed_connection",
        "clean_connection",
        "fast_connection_pool",
        "resource_manager",
        "tdd_async_engine",
        "tdd_async_session",
    )
    tests = "".join(f"def test_{name}({name}): pass\n" for name in names)
    outcome = project.run(tests + "def test_without_fixture(): pass\n", "-p", "no:asyncio")
    outcome.assert_outcomes(passed=1, errors=len(names))
    outcome.assert_says(*(f"{name} needs pytest-asyncio, which is not active" for name in names))
    outcome.assert_says("run without -p no:asyncio").assert_silent_about("Traceback")


def test_naming_the_plugin_module_itself_works(project):
    project.conftest('pytest_plugins = ["dataflow.testing.plugin"]\n')
    project.run(USE).assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("mode", "decorator"), [("auto", "@pytest.fixture"), ("strict", "@pytest_asyncio.fixture")]
)
def test_a_fixture_of_the_projects_own_by_the_same_name(project, mode, decorator):
    """It is built on the context manager, replaces ours, and is used for nothing but itself."""
    project.ini(asyncio_mode=mode)
    project.conftest(
        f"""
        import pytest
        import pytest_asyncio

        {decorator}
        async def tdd_test_context():
            from dataflow.testing.tdd_support import tdd_test_context as tdd_ctx

            async with tdd_ctx(test_id="by hand", purpose="own") as context:
                yield context
        """
    )
    project.run(
        USE
        + """
    @pytest.mark.asyncio
    async def test_it_is_the_projects_own(tdd_test_context, tdd_parallel_safe):
        from dataflow.testing.tdd_support import get_test_context

        assert tdd_test_context.test_id == "by hand"
        assert tdd_test_context.metadata == {"purpose": "own"}
        assert tdd_parallel_safe[0] is tdd_test_context
        assert get_test_context() is tdd_test_context
    """
    ).assert_outcomes(passed=4)


def test_the_name_is_a_context_manager_and_a_fixture_in_one_test(project):
    """Both are real contexts with connections of their own; the current one is the inner one."""
    project.conftest(BY_IMPORT)
    project.run(
        """
        from dataflow.testing.tdd_support import get_test_context, tdd_test_context as open_context

        async def test_both(tdd_test_context):
            async with open_context(test_id="inner") as inner:
                assert get_test_context() is inner
                pids = {await c.connection.fetchval("SELECT pg_backend_pid()") for c in (inner, tdd_test_context)}
                assert len(pids) == 2
            assert get_test_context() is tdd_test_context
        """
    ).assert_outcomes(passed=1)


UNUSED = """
    import sys

    def test_nothing_of_ours_is_loaded():
        heavy = ("asyncio", "asyncpg", "django", "psycopg", "psycopg_pool", "psutil", "sqlalchemy", "sqlmodel",
                 "alembic", "dataflow.testing.server", "dataflow.testing.proof", "dataflow.testing.sandbox",
                 "dataflow.testing.isolation", "dataflow.testing.report", "dataflow.testing.settings",
                 "dataflow.testing.layers", "dataflow.testing.plugin.django")
        assert [name for name in heavy if name in sys.modules] == []
"""


@pytest.mark.parametrize("conftest", ["", BY_PLUGINS, BY_IMPORT], ids=["entry point", "plugins", "import"])
def test_a_run_without_our_fixtures_loads_no_driver_and_no_event_loop(project, conftest):
    project.pytester.makeini("[pytest]\n")
    project.conftest(conftest)
    others = [f"-pno:{name}" for name in ("asyncio", "anyio", "timeout")]
    outcome = project.run(UNUSED, *others)
    outcome.assert_outcomes(passed=1).assert_silent_about("DataFlow TDD")


def test_a_run_without_our_fixtures_starts_no_server_and_makes_no_directory(project, tmp_path):
    project.env.setenv("DATAFLOW_TDD_CACHE_DIR", str(tmp_path / "cache"))
    project.env.setenv("DATAFLOW_TDD_MODE", "true")
    project.run("async def test_other(): pass").assert_outcomes(passed=1).assert_silent_about("DataFlow TDD")
    assert not (tmp_path / "cache").exists()


def test_fixtures_and_their_descriptions_are_listed(project):
    outcome = project.run("", "--fixtures")
    outcome.assert_says("tdd_test_context", "rolled back after the test", "tdd_parallel_safe", "memory_monitor")


def test_a_plain_test_that_gets_a_connection_by_a_fixture_in_between_is_told_as_well(project):
    """Its coroutine would never be awaited, and it would pass."""
    project.conftest(
        """
        import pytest

        @pytest.fixture
        def connection(tdd_test_context):
            return tdd_test_context.connection
        """
    )
    outcome = project.run("def test_forgot(connection):\n    assert connection.fetchval('SELECT 1')")
    outcome.assert_outcomes(errors=1).assert_says("tdd_test_context needs a test that runs in an event loop")


def test_an_autouse_fixture_does_not_keep_plain_tests_from_running(project):
    project.conftest(
        """
        import pytest

        @pytest.fixture(autouse=True)
        async def always(tdd_test_context):
            yield
        """
    )
    project.run("def test_plain(): pass\nasync def test_it(): pass").assert_outcomes(passed=2)


def test_the_url_shows_no_password_in_the_variables_of_a_failure(project):
    outcome = project.run("def test_it(tdd_database_url):\n    assert 0", "--showlocals")
    outcome.assert_outcomes(failed=1).assert_silent_about("dataflow_test_password")
