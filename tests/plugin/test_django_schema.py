"""The migrations of a Django project as a schema source."""

from __future__ import annotations

import pytest
from tests.plugin.django_project import SEED, DjangoProject

MADE, THERE = "schema     Django's migrations; made in", "schema     Django's migrations; was there already"
ONE = """
def test_it(db):
    clean()
"""


@pytest.fixture
def shop(project):
    shop = DjangoProject(project)
    shop.only_here()
    return shop


def test_migrations_run_once_and_again_when_something_that_they_are_made_from_changes(shop):
    """A module of the project's that one imports; a file beside them; a setting."""
    shop.file("shop/names.py", 'SEED = "seed"')
    shop.file("shop/migrations/0002_seed.py", "from shop.names import SEED as NAME\n" + SEED + "# imports\n")
    shop.file("shop/views.py", "")
    shop.run(ONE).assert_outcomes(passed=1)
    shop.file("shop/views.py", "# nothing that tables follow from")
    shop.run(None).assert_outcomes(passed=1).assert_says(THERE)
    shop.file("shop/names.py", 'SEED = "another"')
    shop.run(None).assert_says(MADE)
    shop.file("shop/migrations/notes.txt", "read by a migration, perhaps")
    shop.run(None).assert_says(MADE)
    shop.settings('LANGUAGE_CODE = "de"')
    shop.run(None).assert_says(MADE)


def test_a_handler_of_post_migrate_belongs_to_the_schema(shop):
    handler = """
        from django.apps import AppConfig
        from django.db.models.signals import post_migrate

        def fill(sender, using, **kwargs):
            sender.get_model("Item").objects.using(using).get_or_create(name="{name}")

        class ShopConfig(AppConfig):
            name = "shop"

            def ready(self):
                post_migrate.connect(fill, sender=self)
        """
    tests = """
        def look(name):
            assert list(Item.objects.order_by("id").values_list("name", flat=True)) == ["seed", "{name}"]

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.django_db(transaction=True)
        def test_commits(n):
            look("{name}")
            Item.objects.all().delete()

        def test_rolled_back(db):
            look("{name}")
        """
    for name in ("first", "other"):
        shop.file("shop/apps.py", handler.format(name=name))
        shop.run(tests.format(name=name)).assert_outcomes(passed=3).assert_says(MADE)


def test_a_migration_that_fails_is_named_with_its_line_and_tried_once(shop):
    shop.file("shop/migrations/0002_seed.py", SEED.replace('print("migrating")', "1 / 0  # divided"))
    outcome = shop.run(ONE + "test_other = test_it\n")
    outcome.assert_outcomes(errors=2)
    outcome.assert_says(
        "SchemaFailed: the schema could not be built: migration shop.0002_seed raised ZeroDivisionError",
        "at shop/migrations/0002_seed.py:5, in seed: 1 / 0  # divided",
        "way out: correct it and run again; nothing half-built was kept",
    ).assert_silent_about("Traceback")
    shop.only_here()
    shop.run(None).assert_outcomes(passed=2)


def test_an_extension_that_the_server_lacks_is_told(shop):
    operation = """
        from django.contrib.postgres.operations import CreateExtension
        from django.db import migrations

        class Migration(migrations.Migration):
            dependencies = [("shop", "0002_seed")]
            operations = [CreateExtension("no_such_extension")]
        """
    shop.file("shop/migrations/0003_extension.py", operation)
    outcome = shop.run(ONE).assert_outcomes(errors=1)
    outcome.assert_says(
        "migration shop.0003_extension raised",
        "the PostgreSQL in use does not have the extension no_such_extension",
    )


def test_a_migration_that_takes_too_long(shop):
    slow = SEED.replace("    print", "    __import__('time').sleep(30)\n    print")
    shop.file("shop/migrations/0002_seed.py", slow)
    outcome = shop.run(ONE, "--tdd-schema-timeout=2").assert_outcomes(errors=1)
    outcome.assert_says("the schema was not built within 2 s: Django's migrations were still running")


@pytest.mark.parametrize("how", ["--no-migrations", "TEST"])
def test_without_migrations_the_tables_follow_from_the_models(shop, how):
    shop.settings('DATABASES["default"]["TEST"] = {"MIGRATE": False}' if how == "TEST" else "")
    arguments = [how] if how.startswith("-") else []
    tests = """
        def test_it(db):
            assert not Item.objects.exists()
            assert {field.name for field in Item._meta.fields} == NAMES

        def test_other(transactional_db):
            Item.objects.create(name="x")

        NAMES = {"id", "name"}
        """
    shop.run(tests, *arguments).assert_outcomes(passed=2)
    model = "from django.db import models\nclass Item(models.Model):\n    name = models.TextField()\n"
    shop.file("shop/models.py", model + "    more = models.TextField(default='')\n")
    tests = tests.replace('"name"}', '"name", "more"}')
    shop.run(tests, *arguments).assert_outcomes(passed=2).assert_says(MADE)


def test_rows_that_the_project_adds_to_the_set_up_are_there_for_each_test(shop):
    """As pytest-django's pages advise: also for tests that commit, after others that did."""
    shop.conftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def django_db_setup(django_db_setup, django_db_blocker):
            from shop.models import Item

            with django_db_blocker.unblock():
                Item.objects.create(name="added")
        """
    )
    tests = """
        def look():
            assert list(Item.objects.order_by("id").values_list("id", "name")) == [(1, "seed"), (2, "added")]

        def test_rolled_back(db):
            look()
            Item.objects.create(name="x")

        @pytest.mark.parametrize("n", range(3))
        def test_commits(n, transactional_db):
            look()
            assert Item.objects.create(name="x").id == 3
            Item.objects.filter(name="added").delete()

        test_rolled_back_later = test_rolled_back
        """
    shop.run(tests).assert_outcomes(passed=5)
    arguments = ("-p", "no:randomly", "-p", "no:rerunfailures", "-n", "2")
    shop.run(None, *arguments, plain=False).assert_outcomes(passed=5)


def test_the_schema_may_be_more_than_migrations(shop):
    shop.ini(tdd_schema_sql="more.sql")
    shop.file("more.sql", "INSERT INTO shop_item (name) VALUES ('from SQL');")
    shop.run(
        """
        @pytest.mark.parametrize("n", range(2))
        def test_it(n, transactional_db):
            assert Item.objects.count() == 2
            Item.objects.all().delete()
        """
    ).assert_outcomes(passed=2)
    shop.ini()
    shop.conftest(
        """
        import pytest
        from dataflow.testing.tdd_support import DjangoMigrations, PythonFunction, Steps

        def add(connection):
            connection.execute("INSERT INTO shop_item (name) VALUES ('from Python')")

        @pytest.fixture(scope="session")
        def tdd_schema():
            return Steps(DjangoMigrations(), PythonFunction(add))
        """
    )
    shop.run(None).assert_outcomes(passed=2)
