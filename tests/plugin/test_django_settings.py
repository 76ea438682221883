"""Settings of a Django project, and what is said if they are not right; servers of one's own."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from tests.plugin.django_project import DjangoProject
from tests.plugin.test_roles import Outsider

ONE = """
def test_it(db):
    clean()
"""


@pytest.fixture
def shop(project):
    return DjangoProject(project)


SEVERAL = """
DATABASES["other"] = DATABASES["default"] | {"NAME": "other"}
DATABASES["replica"] = DATABASES["default"] | {"TEST": {"MIRROR": "default"}}
DATABASES["unused"] = DATABASES["default"] | {"NAME": "unused"}
DATABASES["unused mirror"] = DATABASES["default"] | {"TEST": {"MIRROR": "unused"}}
DATABASES["files"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
DATABASE_ROUTERS = ["project.routers.Router"]
"""


def test_several_databases(shop):
    """Each by its migrations, a mirror by those of another; one that is not PostgreSQL's is left to Django."""
    shop.settings(SEVERAL)
    shop.file(
        "project/routers.py",
        """
        class Router:
            def allow_migrate(self, db, app_label, **hints):
                return None if app_label != "news" else db == "other"
        """,
    )
    outcome = shop.run(
        """
        ALL = ["default", "other", "replica", "files"]

        def look():
            for alias in ALL:
                assert list(Item.objects.using(alias).values_list("id", "name")) == [(1, "seed")] , alias
            assert not Post.objects.using("other").exists()
            assert "news_post" not in connection.introspection.table_names()

        def change():
            for alias in ("default", "other", "files"):
                Item.objects.using(alias).create(name="x")
            Post.objects.using("other").create(title="x")

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.django_db(databases=ALL, transaction=True)
        def test_commits(n):
            assert not Post.objects.using("other").exists()
            change()
            assert Item.objects.using("replica").count() == 2

        @pytest.mark.django_db(databases=ALL)
        def test_rolled_back():
            look()
            change()

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.django_db(databases=["other"], transaction=True)
        def test_only_one(n):
            assert Item.objects.using("other").count() == 1
            change_other = Item.objects.using("other").create(name="x")
            with pytest.raises(AssertionError, match="not allowed"):
                Item.objects.count()

        class TestSeveral(TransactionTestCase):
            databases = {"default", "other", "replica"}

            def test_one(self):
                assert Item.objects.using("replica").count() == 1
                Item.objects.create(name="x")
                Item.objects.using("other").create(name="x")

            test_two = test_one
        """
    )
    outcome.assert_outcomes(passed=7).assert_says("schema     Django's migrations", "Django's migrations (other)")


def test_the_settings_of_production_lead_nowhere(shop):
    """How its server is entered is left out; how a session behaves stays."""
    options = {
        "sslmode": "verify-full",
        "service": "production",
        "isolation_level": 3,
        "options": "-c work_mem=8MB",
    }
    shop.settings(
        f'DATABASES["default"] |= {{"OPTIONS": {options!r}, "CONN_MAX_AGE": 600, "PASSWORD": "secret"}}'
    )
    shop.run(
        """
        @pytest.mark.parametrize("n", range(2))
        def test_it(n, transactional_db):
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SHOW work_mem")
                assert cursor.fetchone() == ("8MB",)
                cursor.execute("SHOW transaction_isolation")
                assert cursor.fetchone() == ("repeatable read",)
            Item.objects.all().delete()

        def test_rolled_back(db):
            clean()
        """
    ).assert_outcomes(passed=3)


def test_a_pool_of_django(shop):
    pytest.importorskip("psycopg_pool")
    shop.settings('DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 2, "max_size": 4}}')
    shop.run(
        """
        @pytest.mark.parametrize("n", range(3))
        def test_it(n, transactional_db):
            clean()
            Item.objects.all().delete()

        def test_rolled_back(db):
            clean()
        """
    ).assert_outcomes(passed=4)


def test_switched_off_as_a_whole_tests_with_a_database_are_skipped(shop):
    tests = ONE + "def test_other():\n    pass\n"
    outcome = shop.run(tests, "-rs", "--tdd-mode=false").assert_outcomes(passed=1, skipped=1)
    outcome.assert_says("TDD mode is switched off")


def test_nothing_happens_unless_it_is_switched_on(shop):
    shop.ini(tdd_django="")
    shop.settings('DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}')
    outcome = shop.run(ONE)
    outcome.assert_outcomes(passed=1).assert_silent_about("DataFlow TDD")
    shop.ini(tdd_django="false")
    shop.run(None).assert_outcomes(passed=1).assert_silent_about("DataFlow TDD")


def test_options_of_pytest_django_that_keep_databases_change_nothing(shop):
    for option in ("--reuse-db", "--create-db"):
        shop.run(MIXED_OPTIONS, option).assert_outcomes(passed=3)


MIXED_OPTIONS = """
@pytest.mark.parametrize("n", range(2))
def test_commits(n, transactional_db):
    clean()
    Item.objects.all().delete()

def test_rolled_back(db):
    clean()
"""


def test_what_is_missing_is_told_before_any_test(shop):
    shop.run(ONE, "-p", "no:django").assert_says("tdd_django is on, and pytest-django is not active")
    shop.ini(DJANGO_SETTINGS_MODULE="")
    shop.run(None).assert_says(
        "tdd_django is on, and Django has no settings", "DJANGO_SETTINGS_MODULE = project."
    )
    shop.run(None, "--help").assert_says("--tdd-django")
    shop.ini(tdd_django="perhaps")
    shop.run(None).assert_says("ini option tdd_django", "true, 1, yes or on")


def test_a_project_without_postgresql_is_told(shop):
    shop.settings('DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}')
    outcome = shop.run(ONE).assert_outcomes(errors=1)
    outcome.assert_says(
        "no database of Django's settings is PostgreSQL's (default has django.db.backends.sqlite3)"
    )


@pytest.mark.parametrize(
    ("right", "way"),
    [
        ("SUPERUSER", "put back from the write-ahead log"),
        ("CREATEDB", "replaced by a fresh copy after each test"),
    ],
)
def test_a_server_of_ones_own(shop, admin_dsn, right, way):
    with (
        psycopg.connect(admin_dsn.url(), autocommit=True) as admin,
        closing(Left(admin, admin_dsn, right)) as role,
    ):
        shop.project.database(role.url)
        outcome = shop.run(MIXED_OPTIONS).assert_outcomes(passed=3)
        assert role.others() == []
    if role.version >= 160_000:
        outcome.assert_says(way)


def test_a_role_that_may_not_create_databases_is_told(shop, admin_dsn):
    with psycopg.connect(admin_dsn.url(), autocommit=True) as admin, closing(Left(admin, admin_dsn, "")) as role:
        shop.project.database(role.url)
        shop.run(ONE).assert_outcomes(errors=1).assert_says("may not create databases", "CREATEDB")


class Left(Outsider):
    """A role that goes with all that is its own."""

    def close(self) -> None:
        self.leave()
