"""Tests that anyio runs, with pytest-asyncio beside it and without."""

from __future__ import annotations

import pytest

BACKENDS = """
    import pytest

    UVLOOP = ("asyncio", {"use_uvloop": True})

    @pytest.fixture(scope="module", params=["asyncio", UVLOOP], ids=["asyncio", "uvloop"])
    def anyio_backend(request):
        return request.param
"""
TESTS = """
    import asyncio
    import pytest
    from sqlalchemy import text
    from dataflow.testing.tdd_support import get_test_context

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def connection(tdd_test_context):
        return tdd_test_context.connection

    @pytest.fixture(scope="module")
    def pids():
        return set()

    @pytest.mark.parametrize("turn", range(2))
    async def test_context(turn, connection, tdd_test_context, tdd_parallel_safe, pids):
        print("\\nloop=" + type(asyncio.get_running_loop()).__module__.partition(".")[0])
        assert get_test_context() is tdd_test_context
        assert tdd_parallel_safe[0] is tdd_test_context
        await connection.execute("CREATE TABLE once (id int PRIMARY KEY)")
        pids.add(await connection.fetchval("SELECT pg_backend_pid()"))
        assert len(pids) == 1

    async def test_engine(tdd_async_session):
        await tdd_async_session.execute(text("CREATE TABLE once (id int PRIMARY KEY)"))
        await tdd_async_session.commit()
        await tdd_async_session.rollback()
        assert (await tdd_async_session.execute(text("SELECT count(*) FROM once"))).scalar() == 0

    async def test_others(managed_connection, resource_manager):
        assert await managed_connection.fetchval("SELECT 1") == 1

    async def test_pool(fast_connection_pool):
        assert await fast_connection_pool.fetchval("SELECT 1") == 1

    async def test_clean(clean_connection):
        assert await clean_connection.fetchval("SELECT 1") == 1

    @pytest.mark.tdd(isolation="database")
    async def test_that_commits(tdd_test_context, tdd_database):
        await tdd_test_context.connection.execute("CREATE TABLE kept ()")
        async with tdd_database.connect() as other:
            assert await other.fetchval("SELECT count(*) FROM kept") == 0
"""
OTHERS = {
    "strict": ["-oasyncio_mode=strict"],
    "auto": ["-oasyncio_mode=auto"],
    # In which order the two have hooks called depends on which of them was loaded first.
    "auto, anyio first": ["-oasyncio_mode=auto", "-panyio"],
    "auto, anyio last": ["-oasyncio_mode=auto", "-pasyncio"],
    "alone": ["-pno:asyncio"],
    "its own auto mode": ["-oanyio_mode=auto", "-oasyncio_mode=strict"],
}


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_whoever_is_there_besides_fixtures_run_in_the_loop_of_the_test(project, others):
    project.pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    if "-pno:asyncio" in others:
        project.pytester.makeini("[pytest]\n")
    project.conftest(BACKENDS)
    outcome = project.run(TESTS, "-s", "-W", "ignore::pytest.PytestConfigWarning", *others)
    outcome.assert_outcomes(passed=14)
    uvloop = "asyncio" if "-oasyncio_mode=auto" in others else "uvloop"  # pytest-asyncio runs them, not anyio
    assert sorted(set(outcome.marked("loop"))) == sorted({"asyncio", uvloop})


def test_both_kinds_of_tests_in_one_file(project):
    project.ini(asyncio_mode="strict", asyncio_default_test_loop_scope="session")
    project.conftest(BACKENDS.split(", params")[0] + ")\n    def anyio_backend(): return 'asyncio'")
    project.run(
        """
        import pytest

        @pytest.fixture(scope="module")
        def pids():
            return set()

        async def look(context, pids):
            await context.connection.execute("CREATE TABLE once (id int PRIMARY KEY)")
            pids.add(await context.connection.fetchval("SELECT pg_backend_pid()"))
            assert len(pids) <= 2

        @pytest.mark.parametrize("turn", range(2))
        class TestBoth:
            @pytest.mark.anyio
            async def test_of_anyio(self, turn, tdd_test_context, pids):
                await look(tdd_test_context, pids)

            @pytest.mark.asyncio
            async def test_of_pytest_asyncio(self, turn, tdd_test_context, pids):
                await look(tdd_test_context, pids)

        def test_plain(tdd_psycopg): pass
        """
    ).assert_outcomes(passed=5)


def test_asynchronous_fixtures_of_the_project_work_with_ours(project):
    project.ini(asyncio_mode="strict")
    project.conftest(BACKENDS)
    project.run(
        """
        import pytest

        @pytest.fixture
        async def word(tdd_test_context):
            await tdd_test_context.connection.execute("CREATE TABLE word (text text)")
            yield "word"
            assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM word") in (0, 1)

        @pytest.mark.anyio
        async def test_it(word, tdd_test_context):
            await tdd_test_context.connection.execute("INSERT INTO word VALUES ($1)", word)

        def test_plain(anyio_backend, word):
            assert word == "word"
        """
    ).assert_outcomes(passed=4)


def test_on_trio_it_is_told_that_asyncpg_needs_asyncio(project):
    """As anyio's own fixture chooses: each backend that is installed."""
    project.ini(asyncio_mode="strict")
    project.run(
        """
        import pytest
        pytestmark = pytest.mark.anyio

        async def test_it(tdd_test_context):
            assert await tdd_test_context.connection.fetchval("SELECT 1") == 1

        async def test_other(): pass
        """
    ).assert_outcomes(passed=3, errors=1).assert_says(
        "NoEventLoop: test_it.py::test_it[trio]: tdd_test_context needs asyncio, and anyio runs this test with",
        "asyncpg, which the fixture is for, knows asyncio alone",
        'override the fixture anyio_backend, in a conftest or the module, with one that returns "asyncio"',
    ).assert_silent_about("Traceback")


def test_what_nobody_would_run_is_told(project):
    project.ini(asyncio_mode="strict")
    outcome = project.run(
        """
        import pytest

        def test_plain(tdd_test_context): pass

        @pytest.mark.anyio
        def test_marked_but_plain(tdd_test_context): pass

        def test_with_a_backend(anyio_backend, tdd_test_context): pass

        async def test_without_a_marker(tdd_async_session): pass
        """
    )
    outcome.assert_outcomes(errors=5).assert_says(
        "test_plain: tdd_test_context needs a test that runs in an event loop",
        "test_without_a_marker: tdd_async_session needs a test that runs in an event loop",
        "with anyio, `@pytest.mark.anyio`",
    )


def test_marked_for_pytest_asyncio_which_is_not_there(project):
    project.pytester.makeini("[pytest]\nmarkers = asyncio\n")
    project.run(
        """
        import pytest

        @pytest.mark.asyncio
        async def test_it(tdd_test_context): pass

        @pytest.fixture(autouse=True)
        def always(request):
            if "dynamic" in request.node.name:
                request.getfixturevalue("tdd_test_context")

        def test_dynamic(): pass
        def test_other(): pass
        """,
        "-pno:asyncio",
    ).assert_outcomes(passed=1, errors=2).assert_says(
        "test_it: tdd_test_context needs pytest-asyncio, which is not active, or anyio's marker",
        "test_dynamic: tdd_test_context needs pytest-asyncio, which is not active",
    )
