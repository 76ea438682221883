"""pytest-django on our server: what each of its ways to have a database does to the next test."""

from __future__ import annotations

import pytest
from tests.plugin.django_project import DjangoProject


@pytest.fixture
def shop(project):
    return DjangoProject(project)


ORDER = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: {key})
"""
MIXED = """
@pytest.mark.django_db
def test_rolled_back():
    clean()
    Item.objects.create(name="a")
    Item.objects.filter(name="seed").delete()

def test_fixture(db):
    clean()
    Item.objects.create(name="a")

@pytest.mark.parametrize("n", range(3))
@pytest.mark.django_db(transaction=True)
def test_commits(n):
    clean()
    assert Item.objects.create(name="a").id == 2
    ContentType.objects.all().delete()
    ContentType.objects.clear_cache()
    ContentType.objects.get_for_model(Item)  # made anew, and remembered by Django
    Item.objects.filter(name="seed").delete()
    seen = []

    def look():
        seen.append(Item.objects.count())
        connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [1]

test_rolled_back_after_commits = test_rolled_back

def test_transactional_fixture(transactional_db):
    clean()
    Item.objects.all().delete()

class TestRolledBack(TestCase):
    @classmethod
    def setUpTestData(cls):
        clean()
        cls.item = Item.objects.create(name="of the class")

    def test_one(self):
        assert Item.objects.count() == 2
        Item.objects.create(name="one")
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: Post.objects.create(title="committed"))
        assert len(callbacks) == Post.objects.count() == 1

    test_two = test_one

class TestCommits(TransactionTestCase):
    reset_sequences = True
    serialized_rollback = True

    def setUp(self):
        clean()

    def test_one(self):
        assert Item.objects.create(name="one").pk == 2
        done = []
        with transaction.atomic():
            assert Item.objects.select_for_update().get(name="one")
            transaction.on_commit(lambda: done.append(1))
        assert done
        assert len(list(Item.objects.iterator(chunk_size=1))) == 2

    test_two = test_one

def test_at_last(db):
    clean()
"""


def test_each_test_finds_what_the_migrations_made(shop):
    """Not in pytest-django's order, and so after each other in each order that matters."""
    outcome = shop.run(MIXED)
    outcome.assert_outcomes(passed=12)
    outcome.assert_says("schema     Django's migrations; ", "databases  6 tests with a database")


def test_workers_share_the_template_and_a_second_run_migrates_nothing(shop):
    arguments = ("-p", "no:randomly", "-p", "no:rerunfailures", "-n", "2", "-s")
    shop.only_here()
    first = shop.run(MIXED, *arguments, plain=False)
    first.assert_outcomes(passed=12).assert_says("schema Django's migrations; made in")
    again = shop.run(MIXED, *arguments, plain=False)
    again.assert_outcomes(passed=12).assert_says("schema Django's migrations; was there already")


def test_in_any_order(shop):
    """As pytest-randomly and pytest-xdist may have it: a rolled back test after one that commits."""
    shop.conftest(ORDER.format(key="item.name[::-1]"))
    shop.run(MIXED).assert_outcomes(passed=12)


def test_a_class_whose_tests_did_not_run_leaves_nothing(shop):
    """Django prepares the first test with the class."""
    shop.conftest(ORDER.format(key="item.name"))
    shop.run(
        """
        class TestFirst(TransactionTestCase):
            @classmethod
            def setUpClass(cls):
                super().setUpClass()
                Item.objects.all().delete()
                raise RuntimeError("no")

            def test_1(self):
                pass

        class TestSecond(TestCase):
            def test_2(self):
                clean()
        """,
    ).assert_outcomes(passed=1, errors=1)


def test_what_fails_in_a_test_that_commits_is_undone(shop):
    outcome = shop.run(
        """
        @pytest.mark.django_db(transaction=True)
        def test_fails():
            Item.objects.all().delete()
            transaction.set_autocommit(False)
            Item.objects.create(name="open")
            raise RuntimeError("on purpose")

        class TestFails(TransactionTestCase):
            def test_fails(self):
                Item.objects.all().delete()
                raise RuntimeError("on purpose")

        def test_after(transactional_db):
            clean()
        """
    )
    outcome.assert_outcomes(passed=1, failed=2)


def test_our_own_fixtures_have_the_same_tables(shop):
    """Also where Django was asked for none, and pytest-django lets nobody connect."""
    shop.only_here()
    shop.run(
        """
        def test_database(tdd_database):
            with tdd_database.connect_psycopg() as other:
                assert other.execute("SELECT name FROM shop_item").fetchall() == [("seed",)]

        async def test_context(tdd_test_context):
            assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM shop_item") == 1

        def test_not_asked_for():
            with pytest.raises(RuntimeError, match="Database access not allowed"):
                Item.objects.count()
        """
    ).assert_outcomes(passed=3)


def test_the_budget_of_queries_counts_only_those_of_the_test(shop):
    shop.run(
        """
        @pytest.mark.django_db(transaction=True)
        def test_it(django_assert_num_queries, django_capture_on_commit_callbacks):
            with django_assert_num_queries(1):
                Item.objects.count()

        def test_callbacks(db, django_capture_on_commit_callbacks):
            with django_capture_on_commit_callbacks(execute=True) as callbacks:
                transaction.on_commit(lambda: Item.objects.create(name="later"))
            assert len(callbacks) == 1
            assert Item.objects.count() == 2
        """
    ).assert_outcomes(passed=2)


def test_fixtures_and_available_apps_of_a_test_case(shop):
    shop.file("shop/fixtures/more.json", '[{"model": "shop.item", "pk": 7, "fields": {"name": "loaded"}}]')
    shop.run(
        """
        class TestLoaded(TransactionTestCase):
            fixtures = ["more.json"]

            def test_one(self):
                assert Item.objects.get(pk=7).name == "loaded"
                Item.objects.all().delete()

            test_two = test_one

        class TestAvailable(TransactionTestCase):
            available_apps = ["django.contrib.contenttypes", "django.contrib.auth", "shop"]

            def test_one(self):
                assert Item.objects.get().name == "seed"
                Item.objects.all().delete()

            test_two = test_one

        @pytest.mark.django_db(transaction=True)
        def test_others():
            clean()
        """
    ).assert_outcomes(passed=5)


def test_a_changed_schema_does_not_stay(shop):
    outcome = shop.run(
        """
        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.django_db(transaction=True)
        def test_changes(n):
            clean()
            with connection.schema_editor() as editor:
                editor.delete_model(Post)

        @pytest.mark.tdd(isolation="fresh")
        @pytest.mark.django_db(transaction=True)
        def test_fresh():
            clean()
        """
    )
    outcome.assert_outcomes(passed=3).assert_says("1 asked for a fresh copy")


def test_an_overridden_set_up_that_asks_for_nothing_is_left_alone(shop):
    """A project that has its own database, for whatever reason."""
    shop.settings('DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}')
    shop.conftest(
        """
        import pytest
        from django.core.management import call_command

        @pytest.fixture(scope="session")
        def django_db_setup(django_db_blocker):
            with django_db_blocker.unblock():
                call_command("migrate", verbosity=0)
        """
    )
    outcome = shop.run("def test_it(db):\n    assert Item.objects.get().name == 'seed'")
    outcome.assert_outcomes(passed=1).assert_silent_about("DataFlow TDD")


def test_nothing_is_flushed(shop):
    """A flush sends post_migrate."""
    shop.run(
        """
        from django.db.models.signals import post_migrate

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.django_db(transaction=True)
        def test_it(n):
            post_migrate.connect(note, weak=False)
            assert not sent

        def note(**kwargs):
            sent.append(1)

        sent = []
        """
    ).assert_outcomes(passed=2)
