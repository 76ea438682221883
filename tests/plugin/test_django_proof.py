"""What others commit while a test of Django runs that is rolled back: named, and gone before the next class."""

from __future__ import annotations

import pytest
from tests.plugin.django_project import DjangoProject


@pytest.fixture
def shop(project):
    return DjangoProject(project)


ESCAPES = """
import psycopg

def elsewhere(statement):
    of = connection.settings_dict
    where = {"host": of["HOST"], "port": of["PORT"], "user": of["USER"], "dbname": of["NAME"]}
    with psycopg.connect(**where, password=of["PASSWORD"] or None) as other:
        other.execute(statement)

def test_1_quiet(db):
    clean()
    Item.objects.create(name="a")

def test_2_adds(db):
    clean()
    elsewhere("INSERT INTO shop_item (name) VALUES ('beside')")

def test_3_changes(db):
    clean()
    elsewhere("DELETE FROM shop_item")

class Test4Class(TestCase):
    def test_1_changes(self):
        clean()
        elsewhere("UPDATE shop_item SET name = 'changed'")

    def test_2_goes_on(self):
        assert Item.objects.get().name == "changed"

def test_5_finds_nothing(db):
    clean()

@pytest.mark.django_db(transaction=True)
def test_6_commits():
    clean()
    elsewhere("DELETE FROM shop_item")

def test_7_finds_nothing(db):
    clean()
"""


def test_it_is_named_and_the_next_class_finds_nothing_of_it(shop):
    outcome = shop.run(ESCAPES)
    outcome.assert_outcomes(passed=7, errors=2, failed=1).assert_says(
        "test_2_adds: something was committed in its database while it ran; it was undone",
        "- public.shop_item: 1 row added",
        "test_3_changes: something was committed in its database while it ran; the database is replaced by a "
        "fresh copy of the template before the next class of tests",
        "- public.shop_item: 1 row deleted",
        "Test4Class::test_1_changes: something was committed",
        "- public.shop_item: 1 row updated",
        "mark the test django_db(transaction=True)",
        "isolation proven for 4 of 7 tests",
    )


def test_as_a_warning(shop):
    outcome = shop.run(ESCAPES, "--tdd-escapes=warn", "-W", "default")
    outcome.assert_says(
        "EscapeWarning", "way out: let that code use Django's connection", "isolation proven for 4 of 7 tests"
    )
    assert outcome.result.ret == 0
