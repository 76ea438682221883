"""Django's tests with connections besides the one of their thread: other threads, live servers, other drivers."""

from __future__ import annotations

import pytest
from tests.plugin.django_project import DjangoProject


@pytest.fixture
def shop(project):
    return DjangoProject(project)


def test_a_live_server_and_the_test_see_each_other(shop):
    shop.run(
        """
        import urllib.request

        from django.test import LiveServerTestCase

        def post(url):
            with urllib.request.urlopen(url + "/items", data=b"name=posted") as response:
                assert b"posted" in response.read()
            assert Item.objects.get(name="posted").id == 2

        @pytest.mark.parametrize("n", range(2))
        def test_it(live_server, n):
            clean()
            Post.objects.create(title="x")
            post(live_server.url)

        class TestLive(LiveServerTestCase):
            def test_one(self):
                clean()
                post(self.live_server_url)

            test_two = test_one
        """
    ).assert_outcomes(passed=4)


def test_asynchronous_tests(shop):
    """Their thread keeps a connection, which nobody but us closes."""
    shop.run(
        """
        @pytest.mark.parametrize("n", range(3))
        @pytest.mark.django_db(transaction=True)
        async def test_it(n, async_client):
            assert [item.name async for item in Item.objects.all()] == ["seed"]
            await Item.objects.acreate(name="a")
            response = await async_client.post("/items", {"name": "posted"})
            assert response.json() == {"items": ["seed", "a", "posted"]}

        class TestAsync(TestCase):
            async def test_one(self):
                assert await Item.objects.acount() == 1
                await Item.objects.acreate(name="a")

            test_two = test_one
        """
    ).assert_outcomes(passed=5).assert_says("3 tests with a database").assert_silent_about("left in the database")


def test_a_rolled_back_test_with_a_second_connection_is_warned(shop):
    """An asynchronous test, for example: what it writes is not rolled back."""
    outcome = shop.run(
        """
        @pytest.mark.django_db
        async def test_it():
            assert await Item.objects.acount() == 1

        @pytest.mark.django_db(transaction=True)
        async def test_commits():
            await Item.objects.all().adelete()

        def test_rolled_back(db):
            clean()
        """,
        warnings_are_errors=False,
    )
    outcome.assert_outcomes(passed=3, warnings=1)
    outcome.assert_says(
        "test_it is rolled back, and opened a connection in another thread (thread ThreadPoolExecutor"
    )
    outcome.assert_says("mark the test django_db(transaction=True)")


def test_a_connection_that_a_thread_keeps_is_told_with_its_line(shop):
    outcome = shop.run(
        """
        stop = threading.Event()

        def hold(ready):
            Item.objects.count()
            ready.set()
            stop.wait()

        @pytest.mark.django_db(transaction=True)
        def test_it():
            ready = threading.Event()
            threading.Thread(target=hold, args=[ready], daemon=True).start()
            ready.wait()
            Item.objects.all().delete()

        @pytest.mark.django_db(transaction=True)
        def test_next():
            clean()
            stop.set()
        """,
        "--tdd-leaks=error",
    )
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.assert_says("1 session left in the database of test_it.py::test_it", "opened at test_it.py:2")


def test_other_drivers_and_processes_find_the_database_of_a_test_that_commits(shop):
    shop.run(
        """
        from dataflow.testing.errors import ContextError

        @pytest.mark.django_db(transaction=True)
        def test_it(tdd_django):
            Item.objects.create(name="from Django")
            with tdd_django.lease().connect_psycopg() as other:
                assert other.execute("SELECT count(*) FROM shop_item").fetchone() == (2,)

        def test_rolled_back(tdd_django, db):
            with pytest.raises(ContextError, match="has no database 'default' of its own"):
                tdd_django.lease()
        """
    ).assert_outcomes(passed=2)
