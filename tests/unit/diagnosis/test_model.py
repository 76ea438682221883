"""A diagnosis is a value; its text and its plain form follow from it alone."""

from __future__ import annotations

import json

from dataflow.testing.diagnosis.model import Check, Diagnosis, Status, failure, info, ok, skipped
from dataflow.testing.errors import MissingDatabase


def test_only_a_failed_check_makes_a_diagnosis_fail() -> None:
    fine = (ok("a", "x"), info("b", "x"), skipped("c", "x"))
    bad = Check("d", Status.FAILED, "x")
    assert Diagnosis("T", fine)
    assert not Diagnosis("T", (*fine, bad))
    assert Diagnosis("T", (*fine, bad)).failed == (bad,)


def test_the_text_has_every_part_once_and_in_order() -> None:
    check = Check(
        "port",
        Status.FAILED,
        "first line\nsecond line",
        "turn it on",
        "--port",
        {"tried": ("a", "b"), "yes": True, "ms": 1.25, "what": None, "none": ()},
        cause="it is off",
    )
    assert str(Diagnosis("Title", (ok("a", "b"), check))).splitlines() == [
        "Title",
        "  [ok]      a: b",
        "  [failed]  port: first line",
        "            second line",
        "            likely cause: it is off",
        "            way out: turn it on",
        "            option: --port",
        "            tried:",
        "              - a",
        "              - b",
        "            yes: yes",
        "            ms: 1.2",
        "            what: unknown",
    ]


def test_the_plain_form_has_all_keys_and_is_json() -> None:
    plain = Diagnosis("T", (ok("a", "b", list=("x",)),)).to_plain()
    assert plain == json.loads(json.dumps(plain))
    assert plain == {
        "title": "T",
        "ok": True,
        "checks": [
            {
                "name": "a",
                "status": "ok",
                "found": "b",
                "cause": None,
                "remedy": None,
                "option": None,
                "details": {"list": ["x"]},
            }
        ],
    }


def test_no_text_of_a_check_shows_a_password() -> None:
    url = "postgresql://me:s3cret@host/db"
    check = Check("a", Status.FAILED, url, url, url, {"one": url, "many": (url,)}, cause=url)
    shown = str(Diagnosis("T", (check,))) + json.dumps(check.to_plain())
    assert "s3cret" not in shown
    assert shown.count("me:***@host") == 12


def test_an_error_of_ours_brings_its_own_way_out() -> None:
    check = failure("a", MissingDatabase("it is missing", cause="c", remedy="r", option="o"))
    assert (check.found, check.cause, check.remedy, check.option) == ("it is missing", "c", "r", "o")


def test_a_foreign_error_is_named_and_its_secret_masked() -> None:
    check = failure("a", ValueError("bad value s3cret"), secret="s3cret")
    assert check.found == "ValueError: bad value ***"
    assert check.remedy is not None
    assert "doctor" in check.remedy
    assert failure("a", TimeoutError()).found == "TimeoutError"


def test_a_missing_package_is_named_with_the_command_that_brings_it() -> None:
    check = failure("a", ModuleNotFoundError("No module named 'asyncpg'", name="asyncpg"))
    assert check.found == "the Python package asyncpg is not installed in this environment"
    assert "pip install" in (check.remedy or "")
