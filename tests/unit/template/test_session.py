"""What libpq is given for an address, and how a process names itself to others."""

from __future__ import annotations

import os
import sys

import pytest

from dataflow.testing.dsn import Dsn
from dataflow.testing.template.session import libpq_arguments, this_process


def test_parts_of_an_address_are_named_as_libpq_names_them() -> None:
    dsn = Dsn("h", 1, "u", "p", "d", (("sslmode", "require"),))
    assert libpq_arguments(dsn, {}) == {
        "connect_timeout": 10,
        "sslmode": "require",
        "host": "h",
        "port": 1,
        "user": "u",
        "password": "p",
        "dbname": "d",
    }


def test_what_is_not_known_is_left_to_libpq() -> None:
    assert set(libpq_arguments(Dsn("h"), {})) == {"connect_timeout", "host", "port"}


def test_other_parameters_are_settings_of_the_session_and_ours_win() -> None:
    dsn = Dsn("h", parameters=(("search_path", "a, b\\c"), ("statement_timeout", "1"), ("options", "-c x=1")))
    given = libpq_arguments(dsn, {"statement_timeout": 500})
    assert given["options"] == "-c x=1 -c search_path=a,\\ b\\\\c -c statement_timeout=500"


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/pytest", "-x", "tests"], "pytest -x tests"),
        (["/lib/pytest/__main__.py", "tests"], "pytest tests"),
        (["/bin/x", "ä"], "x ?"),
        (["/bin/x", "postgresql://u:secret@h/d"], "x postgresql://u:***@h/d"),
    ],
)
def test_a_process_is_named_by_number_host_and_command(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], command: str
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    assert this_process() == f"dataflow-tdd {os.getpid()}@host {command}"


def test_the_name_is_no_longer_than_what_the_server_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "x" * 100])
    assert len(this_process()) == 63
