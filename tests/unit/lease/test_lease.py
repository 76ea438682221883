"""What a test holds of its database."""

from __future__ import annotations

import pytest

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import StaleContext
from dataflow.testing.lease.lease import DatabaseLease

DSN = Dsn("h", 1, "u", "hunter2", "d_test")


def urls(lease: DatabaseLease) -> list[str]:
    return [
        lease.url,
        lease.asyncpg_url,
        lease.psycopg_url,
        lease.sqlalchemy_url(),
        lease.sqlalchemy_url("psycopg"),
    ]


def test_urls_have_the_password_and_do_not_show_it() -> None:
    """pytest shows the `repr` of what an assertion compares, and of each local variable if asked to."""
    lease = DatabaseLease("a test", DSN)
    assert all("hunter2" in str(url) for url in urls(lease))
    assert "hunter2" not in repr([lease, *urls(lease)])


def test_a_lease_that_is_over_says_whose_it_was() -> None:
    lease = DatabaseLease("test_it.py::test_a", DSN)
    lease.end()
    with pytest.raises(StaleContext, match=r"the database of test_it\.py::test_a was given back"):
        _ = lease.url
