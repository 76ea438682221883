"""Who gets which connection, how many there are, and in which event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import asyncpg
import pytest

from dataflow.testing.errors import (
    NoTestConnection,
    PoolExhausted,
    StaleContext,
    WrongEventLoop,
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

    async def test_close_and_use_again(self, make):
        tdd = make()
        for _ in range(3):
            async with tdd.test_context() as context:
                await context.connection.execute("SELECT 1")
            assert tdd.backends() == 1
            dsn = tdd.dsn
            await tdd.close()
            await tdd.close()
            assert tdd.manager.server is None
            with pytest.raises(asyncpg.InvalidCatalogNameError):
                await connect_until_gone(dsn)


async def connect_until_gone(dsn):
    """The keeper drops a database soon after its lease ended."""
    for _ in range(500):
        connection = await asyncpg.connect(**dsn.asyncpg_arguments())
        await connection.close()
        await asyncio.sleep(0.02)


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
        tdd = make(pool_size=size, max_connections=most, pool_timeout=0.1)
        contexts = [await tdd.begin_test() for _ in range(expected)]
        pool = tdd.manager.connection_pool
        assert pool.get_max_size() == expected
        assert pool.get_min_size() < expected
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


EXHAUSTED = r"""late: no connection became free within 0.2 s; all 2 are held by:
    - holder one, held for \d\.\d s, last statement: ALTER ROLE x PASSWORD '\*\*\*'
    - holder two, held for \d\.\d s, no statement yet
  likely cause: .*
  way out: .*
  option: DATAFLOW_TDD_POOL_SIZE"""


@pytest.mark.asyncio
class TestWaiting:
    async def test_exhaustion_names_the_holders(self, make):
        tdd = make(pool_size=2, pool_timeout=0.2)
        contexts = [await tdd.begin_test("holder one"), await tdd.begin_test("holder two")]
        with pytest.raises(asyncpg.UndefinedObjectError):
            await contexts[0].connection.execute("ALTER ROLE x PASSWORD 'secret'")
        with pytest.raises(PoolExhausted, match=EXHAUSTED) as told:
            await tdd.begin_test("late")
        assert "secret" not in str(told.value)
        for context in contexts:
            await tdd.end_test(context)
        async with tdd.test_context("afterwards") as context:
            await context.connection.execute("SELECT 1")

    async def test_connections_go_to_those_who_wait_in_their_order(self, make):
        """Also past somebody who asks in the very moment in which one becomes free."""
        tdd = make(pool_size=1)
        order = []

        async def user(name):
            async with tdd.test_context(name):
                order.append(name)
                await asyncio.sleep(0)

        holder = await tdd.begin_test()
        waiting = []
        for n in range(5):
            waiting.append(asyncio.create_task(user(n)))
            await asyncio.sleep(0)
        await tdd.end_test(holder)
        await asyncio.gather(user("late"), *waiting)
        assert order == [0, 1, 2, 3, 4, "late"]

    async def test_giving_up_loses_no_place(self, make):
        """Waiters are cancelled at every moment, also just when it is their turn."""
        tdd = make(pool_size=2)

        async def user():
            async with tdd.test_context() as context:
                await context.connection.execute("SELECT 1")

        for turn in range(40):
            tasks = [asyncio.create_task(user()) for _ in range(6)]
            for _ in range(turn):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            pool = tdd.manager.connection_pool
            assert pool.get_size() == pool.get_idle_size() <= 2
        await asyncio.gather(*(user() for _ in range(10)))
        assert tdd.backends() <= 2

    async def test_ten_at_a_time_with_fewer_connections(self, make):
        tdd = make(pool_size=5)
        await tdd.manager.initialize()
        tdd.ask("CREATE TABLE only_one (key int PRIMARY KEY)")

        async def user(n):
            async with tdd.test_context(f"test {n}", metadata={"n": n}) as context:
                assert get_test_context() is context
                await asyncio.sleep(0)
                await context.connection.execute("CREATE TABLE mine (n int)")
                await context.connection.execute("INSERT INTO mine VALUES ($1)", n)
                assert get_test_context().metadata == {"n": n}
                return await context.connection.fetch("SELECT n FROM mine")

        rows = await asyncio.gather(*(user(n) for n in range(10)))
        assert [row[0]["n"] for row in rows] == list(range(10))
        assert get_test_context() is None
        assert tdd.backends() == 5

    async def test_closing_tells_those_who_wait(self, make):
        tdd = make(pool_size=1)
        holder = await tdd.begin_test("holder")
        late = asyncio.create_task(tdd.begin_test("late"))
        await asyncio.sleep(0.01)
        await tdd.close()
        with pytest.raises(NoTestConnection, match="late: the pool was closed while it waited"):
            await asyncio.wait_for(late, 5)
        await tdd.end_test(holder)


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


class TestLoops:
    def test_loops_one_after_the_other_leave_nothing(self, make_by_hand):
        tdd = make_by_hand()
        pids = set()

        async def use():
            async with tdd.test_context() as context:
                pids.add(await context.connection.fetchval("SELECT pg_backend_pid()"))

        for _ in range(5):
            asyncio.run(use())
        assert len(pids) == 5
        wait_for_backends(tdd, 0)

    def test_a_loop_and_its_pool_are_forgotten(self, make_by_hand):
        tdd = make_by_hand()
        loops = weakref.WeakSet()

        async def use():
            loops.add(asyncio.get_running_loop())
            async with tdd.test_context() as context:
                await context.connection.execute("SELECT 1")

        for _ in range(10):
            asyncio.run(use())
        gc.collect()
        assert len(loops) <= 1

    def test_a_loop_that_does_not_end_properly(self, make_by_hand):
        """Its connections are hung up at the latest when the next one is opened."""
        tdd = make_by_hand()
        loop = asyncio.new_event_loop()
        context = loop.run_until_complete(tdd.begin_test("stuck"))
        connection = context.connection
        loop.close()

        async def use():
            with pytest.raises(WrongEventLoop, match="stuck was used in another event loop"):
                await connection.execute("SELECT 1")
            with pytest.raises(WrongEventLoop):
                connection.transaction()
            await tdd.end_test(context)
            async with tdd.test_context() as fresh:
                await fresh.connection.execute("SELECT 1")

        asyncio.run(use())
        wait_for_backends(tdd, 0)

    def test_a_context_kept_open_to_the_end_of_its_loop(self, make_by_hand):
        tdd = make_by_hand()
        context = asyncio.run(tdd.begin_test("kept"))
        assert tdd.manager.active_connections == {}
        assert tdd.manager.active_contexts == (context,)
        tdd.manager.discard(context)
        assert tdd.manager.active_contexts == ()
        wait_for_backends(tdd, 0)

    def test_threads_with_loops_of_their_own_share_the_server(self, make_by_hand):
        tdd = make_by_hand()
        together = threading.Barrier(4)
        found = []

        async def use():
            together.wait(20)
            async with tdd.test_context() as context:
                found.append(await context.connection.fetchrow("SELECT current_database(), pg_backend_pid()"))

        threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len({database for database, _ in found}) == 1
        assert len({pid for _, pid in found}) == 4
        assert len([event for event in tdd.events if isinstance(event, ServerChosen)]) == 1
        wait_for_backends(tdd, 0)

    def test_uvloop(self, make_by_hand):
        uvloop = pytest.importorskip("uvloop")
        tdd = make_by_hand()

        async def use():
            async with tdd.test_context() as context:
                assert await context.connection.fetchval("SELECT 1") == 1
            await tdd.begin_test("kept")

        for _ in range(2):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(use())
        wait_for_backends(tdd, 0)

    def test_release_without_a_loop(self, make_by_hand):
        tdd = make_by_hand()
        loop = asyncio.new_event_loop()
        held = loop.run_until_complete(tdd.begin_test("held"))
        loop.run_until_complete(tdd.manager.open_connection(TDDTestContext("beside")))
        dsn, connection = tdd.dsn, held.connection
        tdd.release()
        tdd.release()
        assert tdd.manager.active_contexts == ()
        with pytest.raises(StaleContext):
            loop.run_until_complete(connection.execute("SELECT 1"))
        loop.close()
        assert dsn.database

    def test_a_url_without_a_loop_and_inside_of_one(self, make_by_hand):
        tdd = make_by_hand()
        url = tdd.database_url()

        async def inside():
            assert tdd.database_url() == url
            other = make_by_hand()
            assert other.database_url() != url

        asyncio.run(inside())


def wait_for_backends(tdd, expected):
    """A backend notices the end of its connection a moment later."""
    for _ in range(200):
        if tdd.backends() == expected:
            return
        threading.Event().wait(0.02)
    assert tdd.backends() == expected


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
        monkeypatch.setattr("dataflow.testing.isolation.beside.CLOSE_TIMEOUT_S", 0.2)
        tdd = make()
        pool = await tdd.manager.asyncpg_pool()
        assert await tdd.manager.asyncpg_pool() is pool
        forgotten = await pool.acquire()
        async with asyncio.timeout(10):
            await tdd.close()
        with pytest.raises(asyncpg.InterfaceError):
            await forgotten.execute("SELECT 1")


class TestManyTests:
    def test_two_thousand_in_one_loop(self, make_by_hand):
        tdd = make_by_hand()

        async def use():
            await tdd.manager.initialize()
            tdd.ask("CREATE TABLE item (id int)")
            sizes = []
            for n in range(2000):
                context = await tdd.begin_test(str(n))
                await tdd.end_test(context)
                if n % 500 == 499:
                    gc.collect()
                    sizes.append(len(gc.get_objects()) - len(tdd.events))
                    assert tdd.backends() == 1
                    tdd.events.clear()
            assert sizes[-1] - sizes[0] < 200
            assert tdd.manager.connection_pool.get_size() == 1

        asyncio.run(use())

    def test_two_hundred_loops(self, make_by_hand):
        tdd = make_by_hand()

        async def use():
            for _ in range(3):
                async with tdd.test_context():
                    pass

        sizes = []
        for n in range(200):
            asyncio.run(use())
            if n % 50 == 49:
                tdd.events.clear()
                gc.collect()
                sizes.append(len(gc.get_objects()))
                wait_for_backends(tdd, 0)
        assert sizes[-1] - sizes[0] < 200
