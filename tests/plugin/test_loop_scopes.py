"""Event loops of every scope: where connections are used again, and that none stays behind."""

from __future__ import annotations

import pytest
from tests.waiting import wait_until

SCOPES = ("function", "class", "module", "package", "session")

# Two tests in a class and two beside it; what each saw is printed.
FOUR_TESTS = """
    import asyncio
    import pytest

    pytestmark = {mark}

    async def look(context, where):
        print(f"\\nseen={{where}}:{{await context.connection.fetchval('SELECT pg_backend_pid()')}}")
        await context.connection.execute("CREATE TABLE once (id int PRIMARY KEY)")

    class TestInClass:
        async def test_one(self, tdd_test_context):
            await look(tdd_test_context, "class")

        async def test_two(self, tdd_parallel_safe):
            await look(tdd_parallel_safe[0], "class")

    async def test_three(tdd_test_context):
        await look(tdd_test_context, "module")

    async def test_four(tdd_test_context):
        await look(tdd_test_context, "module")
"""
LAST_TEST = """
    import asyncio
    import pytest

    @pytest.mark.asyncio
    async def test_no_backend_of_earlier_loops_is_left(tdd_test_context):
        connection = tdd_test_context.connection
        count = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        for _ in range(500):
            if await connection.fetchval(count) == 1:
                break
            await asyncio.sleep(0.01)
            await connection.execute("SELECT pg_stat_clear_snapshot()")
        else:
            pytest.fail("backends of loops that ended are still there")
        print("\\ndatabase=" + await connection.fetchval("SELECT current_database()"))
"""


def assert_nothing_left(ask, outcome):
    (database,) = outcome.marked("database")
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
    wait_until(lambda: ask(count) == [(0,)], f"nobody is left in {database}")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_each_default_scope_uses_one_backend(project, ask, mode, scope):
    project.ini(asyncio_mode=mode, asyncio_default_test_loop_scope=scope)
    mark = "pytest.mark.asyncio" if mode == "strict" else "[]"
    project.file("inside/__init__.py", "")
    project.file("inside/test_it.py", FOUR_TESTS.format(mark=mark))
    project.file("test_last.py", LAST_TEST)
    outcome = project.run(None, "-s", "inside", "test_last.py").assert_outcomes(passed=5)
    seen = {where: set() for where in ("class", "module")}
    for where, pid in (line.split(":") for line in outcome.marked("seen")):
        seen[where].add(pid)
    # A session goes on in the next loop.
    assert len(seen["class"] | seen["module"]) == 1
    assert_nothing_left(ask, outcome)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_all_scopes_together_in_one_run(project, ask, mode):
    """By marker; one file each, twice over, so that loops of all scopes live side by side."""
    project.ini(asyncio_mode=mode)
    for turn in ("a", "b"):
        for scope in SCOPES:
            mark = f"pytest.mark.asyncio(loop_scope={scope!r})"
            project.file(f"inside_{turn}/test_{scope}.py", FOUR_TESTS.format(mark=mark))
        project.file(f"inside_{turn}/__init__.py", "")
    outcome = project.run(LAST_TEST.replace("== 1", "<= 3"), "-s", "inside_a", "inside_b", "test_it.py")
    outcome.assert_outcomes(passed=41).assert_silent_about("was not rolled back")
    assert_nothing_left(ask, outcome)


def test_fixtures_of_the_project_may_be_wider_than_the_loops_of_tests(project):
    """A schema made once in a session loop is seen by tests in loops of their own."""
    project.ini(asyncio_mode="auto", asyncio_default_fixture_loop_scope="session")
    project.conftest(
        """
        import asyncpg
        import pytest

        @pytest.fixture(scope="session")
        async def schema(tdd_database_url):
            connection = await asyncpg.connect(tdd_database_url)
            await connection.execute("CREATE TABLE item (id serial PRIMARY KEY)")
            await connection.close()
        """
    )
    project.run(
        """
        import pytest

        @pytest.mark.parametrize("n", range(3))
        async def test_insert(schema, tdd_test_context, n):
            connection = tdd_test_context.connection
            await connection.execute("INSERT INTO item DEFAULT VALUES")
            assert await connection.fetchval("SELECT count(*) FROM item") == 1
        """
    ).assert_outcomes(passed=3)


def test_a_connection_in_the_wrong_loop_is_refused_in_words(project):
    project.ini(asyncio_mode="auto", asyncio_default_test_loop_scope="session")
    outcome = project.run(
        """
        import pytest

        @pytest.fixture  # in a function loop, and the tests are in a session loop
        async def filled(tdd_test_context):
            await tdd_test_context.connection.execute("SELECT 1")

        async def test_use(filled): pass

        async def test_next(tdd_test_context):
            assert await tdd_test_context.connection.fetchval("SELECT 1") == 1
        """
    )
    outcome.assert_outcomes(passed=1, errors=1).assert_says(
        "WrongEventLoop: the connection of test_it.py::test_use was used in another event loop than its own",
        "test and fixture run in loops of different scope",
        "give both the same loop_scope",
        "asyncio_default_fixture_loop_scope",
    )


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_a_plain_test_that_asks_for_a_context_is_told_why_it_cannot(project, mode):
    project.ini(asyncio_mode=mode)
    outcome = project.run(
        """
        def test_plain(tdd_test_context): pass
        def test_parallel(tdd_parallel_safe): pass
        def test_other(): pass
        def test_settings(tdd_settings): pass
        """
    )
    outcome.assert_outcomes(passed=2, errors=2).assert_says(
        "NoEventLoop: test_it.py::test_plain: tdd_test_context needs a test that runs in an event loop",
        "NoEventLoop: test_it.py::test_parallel: tdd_parallel_safe needs",
        "write `@pytest.mark.asyncio` above `async def`, or set asyncio_mode = auto",
    ).assert_silent_about("Traceback", "loop_scope.py")


def test_a_plain_test_may_use_an_asynchronous_fixture_that_uses_ours(project):
    project.run(
        """
        import pytest

        @pytest.fixture
        async def one(tdd_test_context):
            return await tdd_test_context.connection.fetchval("SELECT 1")

        def test_plain(one):
            assert one == 1
        """
    ).assert_outcomes(passed=1)


def test_uvloop_is_as_good_as_asyncio(project, ask):
    project.session_loops()
    project.conftest(
        """
        import asyncio
        import uvloop

        def pytest_asyncio_loop_factories(config, item):
            return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
        """
    )
    project.file("test_four.py", FOUR_TESTS.format(mark="[]"))
    loops = """
        import asyncio

        async def test_loop(tdd_test_context):
            print("\\nloop=" + type(asyncio.get_running_loop()).__module__.partition(".")[0])
    """
    outcome = project.run(loops, "-s").assert_outcomes(passed=10)
    assert sorted(outcome.marked("loop")) == ["asyncio", "uvloop"]
