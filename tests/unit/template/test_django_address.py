"""The address of a database in Django's words, and back again."""

from __future__ import annotations

from typing import Any

from dataflow.testing.dsn import Dsn
from dataflow.testing.template.django_address import pointed

PRODUCTION: dict[str, Any] = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "shop",
    "HOST": "db.example.org",
    "PASSWORD": "secret",
    "CONN_MAX_AGE": 600,
    "OPTIONS": {"sslmode": "verify-full", "service": "shop", "pool": True, "options": "-c work_mem=8MB"},
}


def test_where_it_is_is_ours_and_how_a_session_behaves_is_the_projects() -> None:
    settings = PRODUCTION | {}
    with pointed(settings, Dsn("/run/here", 5433, "tester", None, "copy_1")):
        here = dict(settings)
    assert {key: here[key] for key in ("HOST", "PORT", "USER", "PASSWORD", "NAME", "CONN_MAX_AGE")} == {
        "HOST": "/run/here",
        "PORT": "5433",
        "USER": "tester",
        "PASSWORD": "",
        "NAME": "copy_1",
        "CONN_MAX_AGE": 600,
    }
    assert here["OPTIONS"]["pool"] is True
    assert here["OPTIONS"]["options"] == "-c work_mem=8MB"
    assert not {"sslmode", "service", "host", "dbname"} & here["OPTIONS"].keys()


def test_afterwards_all_is_as_before() -> None:
    settings = PRODUCTION | {}
    with pointed(settings, Dsn.parse("postgresql://me:pw@localhost/x?sslmode=disable")):
        assert settings["OPTIONS"]["sslmode"] == "disable"
    assert settings == PRODUCTION


def test_options_of_the_url_come_first_and_those_of_the_project_win() -> None:
    settings = PRODUCTION | {}
    with pointed(settings, Dsn.parse("postgresql://me@localhost/x?statement_timeout=7")):
        assert settings["OPTIONS"]["options"] == "-c statement_timeout=7 -c work_mem=8MB"
