"""From what a server allows to how databases are made ready."""

from __future__ import annotations

import pytest

from dataflow.testing.errors import CannotCreateDatabase
from dataflow.testing.lease.strategy import Facts, Method, choose

ALL = Facts(version=180006, role="me", superuser=True, create_database=True, walinspect=True)


def test_with_all_that_it_takes_the_log_is_used() -> None:
    for version in (160000, 170010, 180006, 190000):
        found = choose(ALL._replace(version=version))
        assert (found.method, found.reason) == (Method.LOG, None)
    assert str(choose(ALL)) == "put back from the write-ahead log"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (ALL._replace(version=150018), "the log can be read from PostgreSQL 16 on, this is 15"),
        (ALL._replace(walinspect=False), "(the server has no extension pg_walinspect, which Debian has in"),
        (
            ALL._replace(superuser=False),
            "(reading the log and leaving triggers out take a superuser, me is none)",
        ),
        (ALL._replace(superuser=False, walinspect=False), "postgresql-contrib; reading the log and leaving"),
    ],
)
def test_else_each_test_gets_a_fresh_copy_and_it_is_said_why(facts: Facts, reason: str) -> None:
    found = choose(facts)
    assert found.method is Method.CLONE
    assert str(found).startswith("replaced by a fresh copy after each test (")
    assert reason in str(found)


def test_without_copies_there_is_an_error_with_the_way_out() -> None:
    with pytest.raises(CannotCreateDatabase, match="role me may not create databases") as caught:
        choose(ALL._replace(create_database=False, superuser=False))
    assert 'ALTER ROLE "me" CREATEDB' in str(caught.value)
    assert caught.value.option == "TEST_DATABASE_URL"
