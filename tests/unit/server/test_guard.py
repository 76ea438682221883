"""The guard decides by name, and says what to do."""

from __future__ import annotations

import pytest

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import NotATestDatabase
from dataflow.testing.server.external import GUIDE_DSN, check_test_database, looks_like_tests


@pytest.mark.parametrize(
    "name", ["test", "app_test", "TEST_app", "tests-1", "app.testing", "tdd_3fa2", "shop_test2", "test42"]
)
def test_names_with_a_word_for_tests_pass(name: str) -> None:
    assert looks_like_tests(name)


@pytest.mark.parametrize("name", ["contest", "latest", "attestation", "protest_db", "production", "tester"])
def test_names_that_only_contain_the_letters_do_not_pass(name: str) -> None:
    assert not looks_like_tests(name)


def test_the_guides_own_database_passes() -> None:
    check_test_database(GUIDE_DSN, frozenset())


def test_a_name_that_the_user_vouches_for_passes() -> None:
    check_test_database(Dsn("db", database="latest"), frozenset({"latest"}))


def test_refusal_names_the_database_and_the_option_but_no_password() -> None:
    dsn = Dsn("db.example", 5432, "me", "secret", "shop")
    with pytest.raises(NotATestDatabase) as raised:
        check_test_database(dsn, frozenset({"other"}))
    text = str(raised.value)
    assert "'shop' at db.example:5432 is refused" in text
    assert "DATAFLOW_TDD_ALLOW_DATABASE=shop" in text
    assert "--tdd-allow-database" in text
    assert "secret" not in text


def test_no_database_name_is_refused_even_when_something_is_allowed() -> None:
    with pytest.raises(NotATestDatabase, match="names no database"):
        check_test_database(Dsn("db", password="secret"), frozenset({""}))
