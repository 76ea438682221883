"""Event loops come and go, one after the other and in threads; nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.waiting import wait_until

from dataflow.testing.errors import PoolExhausted, StaleContext, WrongEventLoop
from dataflow.testing.events import ContextReleased, ServerChosen
from dataflow.testing.isolation.context import TDDTestContext


class TestLoops:
    def test_all_together_keep_to_the_most_connections(self, make_by_hand):
        """Three loops at the same time, in threads: two get their connections, the third waits."""
        tdd = make_by_hand(pool_size=2, max_connections=2, pool_timeout=20)
        inside, most = set(), []
        together = threading.Barrier(3)

        async def use(number):
            async with tdd.test_context(str(number)) as context:
                inside.add(number)
                await context.connection.execute("SELECT 1")
                await asyncio.sleep(0.05)
                most.append(len(inside))
                await tdd.until_backends(2)
                inside.discard(number)

        def run(number):
            together.wait(20)
            for _ in range(5):
                asyncio.run(use(number))

        with ThreadPoolExecutor(3) as executor:
            for done in [executor.submit(run, number) for number in range(3)]:
                done.result(60)
        assert len(most) == 15
        assert max(most) <= 2

    def test_nothing_that_was_prepared_is_there_in_the_next_loop(self, make_by_hand):
        tdd = make_by_hand()
        found = []

        async def run(number):
            async with tdd.test_context(str(number)) as context:
                query = (
                    "SELECT name FROM pg_prepared_statements WHERE name !~ '^dataflow_tdd' AND statement <> $1"
                )
                found.append(await context.connection.fetch(query, query))
                await context.connection.fetchval("SELECT $1::int", number)
                statement = await context.connection.prepare("SELECT 1")
                await statement.fetch()
            managed = TDDTestContext("beside")
            connection = await tdd.manager.get_test_connection(managed)
            await connection.fetchval("SELECT $1::text", "outside")
            await tdd.manager.cleanup_test_connection(managed)

        for number in range(5):
            asyncio.run(run(number))
        assert found[1:] == [[]] * 4  # in the first one the server was asked since when it is up
        assert sum(event.opened for event in tdd.events if isinstance(event, ContextReleased)) == 1

    def test_a_loop_that_finds_no_place_says_who_has_them(self, make_by_hand):
        tdd = make_by_hand(pool_size=1, max_connections=1, pool_timeout=2)
        loop = asyncio.new_event_loop()
        context = loop.run_until_complete(tdd.begin_test("first"))

        async def use():
            async with tdd.test_context("second"):
                pass

        with pytest.raises(
            PoolExhausted, match=r"may have 1 in all, which are held by:\n    - first, held for \d"
        ):
            asyncio.run(use())
        loop.run_until_complete(tdd.end_test(context))
        asyncio.run(use())
        loop.run_until_complete(asyncio.sleep(0))  # what was hung up meanwhile
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def test_loops_one_after_the_other_go_on_with_one_session(self, make_by_hand):
        tdd = make_by_hand()
        pids = set()

        async def use():
            async with tdd.test_context() as context:
                pids.add(await context.connection.fetchval("SELECT pg_backend_pid()"))

        for _ in range(5):
            asyncio.run(use())
        assert len(pids) == 1
        wait_for_backends(tdd, 1)

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
        wait_for_backends(tdd, 1)

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
            async with tdd.test_context() as context:
                found.append(await context.connection.fetchrow("SELECT current_database(), pg_backend_pid()"))
                together.wait(20)

        threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len({database for database, _ in found}) == 1
        assert len({pid for _, pid in found}) == 4
        assert len([event for event in tdd.events if isinstance(event, ServerChosen)]) == 1
        wait_for_backends(tdd, 4)

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
    wait_until(lambda: tdd.backends() == expected, f"{expected} backends are left")


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
                wait_for_backends(tdd, 1)
        assert sizes[-1] - sizes[0] < 200
