"""Who gets which connection, how many there are, and in which event loop."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from tests.integration.isolation.conftest import ask
from tests.waiting import until

from dataflow.testing.errors import (
    NoTestConnection,
    PoolExhausted,
    StaleContext,
)
from dataflow.testing.events import ServerChosen
from dataflow.testing.isolation.context import (
    ContextState,
    TDDTestContext,
    get_test_context,
)


@pytest.mark.asyncio
class TestInitialize:
    async def test_many_at_once_are_one(self, make):
        tdd = make()
        await asyncio.gather(*(tdd.manager.initialize() for _ in range(10)))
        await tdd.manager.initialize()
        assert [type(event) for event in tdd.events] == [ServerChosen]
        assert tdd.manager.connection_pool.get_size() == 1
        assert tdd.backends() == 1

    async def test_a_connection_before_it_goes_to_the_same_server(self, make):
        tdd = make()
        assert tdd.manager.connection_pool is None
        first, second = TDDTestContext("first"), TDDTestContext("second")
        connections = await asyncio.gather(
            tdd.manager.get_test_connection(first), tdd.manager.get_test_connection(second)
        )
        names = {await c.fetchval("SELECT current_database()") for c in connections}
        await tdd.manager.initialize()
        assert names == {tdd.dsn.database}
        for context in (first, second):
            await tdd.manager.cleanup_test_connection(context)

    async def test_the_same_url_again_changes_nothing(self, make):
        tdd, other = make(), make()
        await other.manager.initialize()
        url = other.dsn.url()
        await tdd.manager.initialize(url)
        async with tdd.test_context() as context:
            await asyncio.gather(tdd.manager.initialize(url), tdd.manager.initialize(url))
            assert await context.connection.fetchval("SELECT current_database()") == other.dsn.database
        assert len([event for event in tdd.events if isinstance(event, ServerChosen)]) == 1

    async def test_another_url_takes_the_place_of_the_server_in_use(self, make):
        tdd, other = make(), make()
        await other.manager.initialize()
        held = await tdd.begin_test("held")
        connection = held.connection
        await tdd.manager.initialize(other.dsn.url())
        assert tdd.dsn == other.dsn
        with pytest.raises(StaleContext):
            await connection.execute("SELECT 1")
        await tdd.end_test(held)

    async def test_close_and_use_again(self, make, admin_dsn):
        tdd = make()
        for _ in range(3):
            async with tdd.test_context() as context:
                await context.connection.execute("SELECT 1")
            assert tdd.backends() == 1
            dsn = tdd.dsn
            await tdd.close()
            await tdd.close()
            assert tdd.manager.server is None
            await until_dropped(dsn.database, admin_dsn)


async def until_dropped(database, admin_dsn):
    """The keeper drops a database soon after its lease ended. Seen from outside: it ends whoever is inside."""
    named = "SELECT 1 FROM pg_database WHERE datname = %s"
    await until(lambda: not ask(admin_dsn, named, database), f"{database} is dropped")


@pytest.mark.asyncio
class TestPool:
    async def test_its_sizes_are_what_is_held(self, make):
        tdd = make(pool_size=3)
        await tdd.manager.initialize()
        pool = tdd.manager.connection_pool

        def sizes():
            return pool.get_size(), pool.get_idle_size(), len(tdd.manager.active_connections)

        assert (pool.get_min_size(), pool.get_max_size()) == (1, 3)
        assert sizes() == (1, 1, 0)
        contexts = []
        for n in range(3):
            contexts.append(await tdd.begin_test(f"test {n}"))
            assert sizes() == (n + 1, 0, n + 1)
            assert tdd.backends() == n + 1
        assert list(tdd.manager.active_connections) == ["test 0", "test 1", "test 2"]
        for n, context in enumerate(contexts):
            await tdd.end_test(context)
            assert sizes() == (3, n + 1, 2 - n)
        assert tdd.backends() == 3

    @pytest.mark.parametrize(("size", "most", "expected"), [(5, 3, 3), (2, 10, 2), (1, 1, 1)])
    async def test_its_maximum_is_the_pool_size_within_max_connections(self, make, size, most, expected):
        tdd = make(pool_size=size, max_connections=most)
        contexts = [await tdd.begin_test() for _ in range(expected)]
        pool = tdd.manager.connection_pool
        assert pool.get_max_size() == expected
        assert pool.get_min_size() < expected
        tdd.wait_only(0.1)
        with pytest.raises(PoolExhausted):
            await tdd.begin_test()
        for context in contexts:
            await tdd.end_test(context)

    async def test_two_contexts_never_share_and_one_gets_the_same_again(self, make):
        tdd = make()
        contexts = [TDDTestContext("same name") for _ in range(3)]
        once = await asyncio.gather(*(tdd.manager.get_test_connection(c) for c in contexts))
        again = await asyncio.gather(*(tdd.manager.get_test_connection(c) for c in contexts * 3))
        assert [id(c) for c in again] == [id(c) for c in once] * 3
        assert len({await c.fetchval("SELECT pg_backend_pid()") for c in once}) == 3
        assert list(tdd.manager.active_connections) == ["same name", "same name#2", "same name#3"]
        await tdd.manager.cleanup_all_test_connections()
        assert tdd.manager.active_connections == {}

    async def test_two_tasks_of_one_new_context_get_one_connection(self, make):
        tdd = make()
        context = TDDTestContext()
        one, two = await asyncio.gather(*(tdd.manager.get_test_connection(context) for _ in range(2)))
        assert one is two
        await tdd.manager.cleanup_test_connection(context)
        assert tdd.manager.connection_pool.get_size() == tdd.manager.connection_pool.get_idle_size() == 1

    async def test_cleanup_is_idempotent_also_at_the_same_time(self, tdd):
        await tdd.manager.cleanup_test_connection(TDDTestContext("never connected"))
        context = await tdd.begin_test("cleaned")
        await context.connection.execute("INSERT INTO item VALUES (1)")
        await asyncio.gather(*(tdd.manager.cleanup_test_connection(context) for _ in range(5)))
        await tdd.manager.cleanup_test_connection(context)
        pool = tdd.manager.connection_pool
        assert (pool.get_size(), pool.get_idle_size()) == (1, 1)
        assert context.state is ContextState.RELEASED
        with pytest.raises(StaleContext, match="cleaned: its connection was given back"):
            _ = context.connection

    async def test_a_context_without_a_connection_says_how_to_get_one(self):
        with pytest.raises(NoTestConnection, match="get_test_connection"):
            _ = TDDTestContext().connection


@pytest.mark.asyncio
class TestNesting:
    async def test_contexts_nest_and_need_not_end_in_order(self, tdd):
        outer, inner = await tdd.begin_test("outer"), await tdd.begin_test("inner")
        assert get_test_context() is inner
        await outer.connection.execute("INSERT INTO item VALUES (1)")
        assert await inner.connection.fetchval("SELECT count(*) FROM item") == 0
        await tdd.end_test(outer)
        assert get_test_context() is inner
        await tdd.end_test(inner)
        assert get_test_context() is None

    async def test_tasks_inherit_the_context_and_keep_theirs_to_themselves(self, tdd):
        async def task():
            before = get_test_context().test_id
            async with tdd.test_context("of the task"):
                return before, get_test_context().test_id

        async with tdd.test_context("of the test") as context:
            assert await asyncio.create_task(task()) == ("of the test", "of the task")
            assert get_test_context() is context


@pytest.mark.asyncio
class TestBeside:
    async def test_connections_beside_the_pool_commit_and_are_counted(self, make):
        tdd = make(pool_max_overflow=2)
        contexts = [TDDTestContext(f"beside {n}") for n in range(3)]
        results = await asyncio.gather(
            *(tdd.manager.open_connection(context) for context in contexts), return_exceptions=True
        )
        opened = [result for result in results if not isinstance(result, Exception)]
        (refused,) = [result for result in results if isinstance(result, Exception)]
        assert isinstance(refused, PoolExhausted)
        await opened[0].execute("CREATE TABLE stays (id int)")
        assert await opened[1].fetchval("SELECT count(*) FROM stays") == 0
        for connection in opened * 2:
            await tdd.manager.close_connection(connection)
        assert tdd.manager.active_contexts == ()

    async def test_a_plain_pool_with_a_forgotten_connection_does_not_hang_the_end(self, make, monkeypatch):
        monkeypatch.setattr("dataflow.testing.isolation.plain_pool.CLOSE_TIMEOUT_S", 0.2)
        tdd = make()
        pool, same = await asyncio.gather(tdd.manager.asyncpg_pool(), tdd.manager.asyncpg_pool())
        assert same is pool
        forgotten = await pool.acquire()
        async with asyncio.timeout(10):
            await tdd.close()
        with pytest.raises(asyncpg.InterfaceError):
            await forgotten.execute("SELECT 1")
