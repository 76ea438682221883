"""Database addresses: read, shown, and given to drivers."""

from __future__ import annotations

import inspect

import pytest
from asyncpg import connect_utils

from dataflow.testing.dsn import Dsn, SecretUrl

HARD = "p:a/s?s#w@o%r d&é'\""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h:6432/d_test", Dsn("h", 6432, "u", "p", "d_test")),
        ("postgres://h/d", Dsn("h", 5432, None, None, "d")),
        ("postgresql+asyncpg://u@h/d", Dsn("h", 5432, "u", None, "d")),
        ("  postgresql://h/d\n", Dsn("h", 5432, None, None, "d")),
        ("postgresql://u:p%3Aa%2Fs%20s@h/a%20b", Dsn("h", 5432, "u", "p:a/s s", "a b")),
        ("postgresql://[::1]:5433/d", Dsn("::1", 5433, None, None, "d")),
        ("postgresql:///d?host=/run/pg&port=5433", Dsn("/run/pg", 5433, None, None, "d")),
        ("postgresql://u@%2Frun%2Fpg/d", Dsn("/run/pg", 5432, "u", None, "d")),
        ("postgresql://h/d?sslmode=require", Dsn("h", database="d", parameters=(("sslmode", "require"),))),
        ("postgresql://h?user=u&password=p&dbname=d", Dsn("h", 5432, "u", "p", "d")),
        ("postgresql://h", Dsn("h")),
    ],
)
def test_reading(url: str, expected: Dsn) -> None:
    assert Dsn.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:hunter2@h/d", "must begin with postgresql://, not 'mysql'"),
        ("hunter2", "not 'no scheme'"),
        ("", "not 'no scheme'"),
        ("postgresql://u:hunter2@h:port/d", "host or port cannot be read"),
        ("postgresql://u:hunter2@h:99999/d", "host or port cannot be read"),
        ("postgresql://u:hunter2@[::1/d", "host or port cannot be read"),
        ("postgresql://u:hunter2@a,b/d", "it names several hosts"),
        ("postgresql://u:hunter2@h/d?port=x", "its port is not a number"),
    ],
)
def test_a_bad_url_is_explained_and_not_repeated(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Dsn.parse(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "dsn",
    [
        Dsn("h", 1, "u", HARD, "d_test"),
        Dsn("::1", 1, HARD, "p", HARD),
        Dsn("/run/pg dir", 5433, "u", HARD, "d_test"),
        Dsn("h", 1, "u", None, None, (("sslmode", "require"), ("application_name", "a b"))),
    ],
)
def test_url_and_back_is_the_same_address(dsn: Dsn) -> None:
    assert Dsn.parse(dsn.url()) == dsn


def test_asyncpg_reads_our_urls_as_we_do() -> None:
    dsn = Dsn("h.example", 6543, "us er", HARD, "d_test")
    names = inspect.signature(connect_utils._parse_connect_dsn_and_args).parameters
    arguments = dict.fromkeys(names) | {"dsn": dsn.url()}
    addresses, parameters, *_ = connect_utils._parse_connect_dsn_and_args(**arguments)
    assert addresses == [("h.example", 6543)]
    assert (parameters.user, parameters.password, parameters.database) == ("us er", HARD, "d_test")


@pytest.mark.parametrize("password", ["hunter2", HARD])
def test_no_way_of_printing_shows_the_password(password: str) -> None:
    dsn = Dsn("h", 1, "u", password, "d_test")
    for shown in (str(dsn), repr(dsn), f"{dsn}", f"{dsn!r}", "%s" % dsn, dsn.where, str([dsn])):  # noqa: UP031
        assert password not in shown
        assert len(password) != shown.count("*")
    assert str(dsn) == "postgresql://u:***@h:1/d_test"
    assert str(Dsn("h", 1, "u", None, "d_test")) == "postgresql://u@h:1/d_test"


def test_the_scheme_can_be_chosen_for_other_libraries() -> None:
    assert Dsn("h", 1, "u", "p", "d").url(scheme="postgresql+asyncpg") == "postgresql+asyncpg://u:p@h:1/d"


def test_arguments_for_asyncpg() -> None:
    tcp = Dsn("h", 1, "u", "p", "d", (("sslmode", "require"), ("search_path", "a"))).asyncpg_arguments()
    assert tcp == {
        "host": "h",
        "port": 1,
        "user": "u",
        "password": "p",
        "database": "d",
        "ssl": "require",
        "target_session_attrs": "any",
        "server_settings": {"search_path": "a", "application_name": "dataflow-tdd"},
    }
    socket = Dsn("/run/pg", 1, "u", None, "d", (("application_name", "mine"),)).asyncpg_arguments()
    assert socket["ssl"] is False
    assert "password" not in socket
    assert socket["server_settings"] == {"application_name": "mine"}


def test_where_it_is_in_words() -> None:
    assert Dsn("h", 1).where == "h:1"
    assert Dsn("::1", 1).where == "[::1]:1"
    assert Dsn("/run/pg", 1).where == "/run/pg/.s.PGSQL.1"
    assert Dsn("h", 1, "u", "p", "d").with_database("e") == Dsn("h", 1, "u", "p", "e")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:12/34@host/db",
        "postgresql://u:1?2=3@host/db",
        "postgresql://u:1#2@host/db",
        "postgresql://u:p@1/2@host/db",
    ],
)
def test_a_password_that_ends_the_host_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="an @ stands behind the first /") as caught:
        Dsn.parse(url)
    assert "34" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:p%2F%40@host:5432/db?sslmode=disable", "postgresql:///db?host=/tmp", "postgresql://u@h/d"],
)
def test_a_proper_url_is_not_taken_for_a_misread_one(url: str) -> None:
    Dsn.parse(url)


@pytest.mark.parametrize("url", ["postgresql://h:0/d", "postgresql://h/d?port=0", "postgresql://h/d?port=99999"])
def test_a_port_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        Dsn.parse(url)


def test_secret_parameters_are_not_shown() -> None:
    dsn = Dsn.parse("postgresql://u@h/d?sslpassword=hush")
    assert "hush" not in str(dsn) + repr(dsn)
    assert "hush" in dsn.url()


def test_a_database_named_in_the_parameters_is_the_database() -> None:
    """As a setting of the session it would win over the path, and the guard would look at the wrong one."""
    for url in ("postgresql://h/app_test?database=shop", "postgresql://h/app_test?dbname=shop"):
        dsn = Dsn.parse(url)
        assert dsn.database == "shop"
        assert "database" not in dsn.asyncpg_arguments()["server_settings"]


def test_a_url_for_drivers_hides_its_password_from_whoever_prints_variables() -> None:
    url = SecretUrl("postgresql://u:hunter2@h:1/d_test")
    assert url == "postgresql://u:hunter2@h:1/d_test"
    assert repr(url) == "'postgresql://u:***@h:1/d_test'"
    assert "hunter2" not in repr({"url": url})


def test_parameters_with_secrets_are_not_shown() -> None:
    shown = str(Dsn.parse("postgresql://u@h/d_test?passwd=hunter2&options=-cfoo.password%3Dhunter2"))
    assert "hunter2" not in shown
