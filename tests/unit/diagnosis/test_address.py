"""The parts of a URL, and what is wrong with it."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from dataflow.testing.diagnosis.address import ConnectionString, describe_url

PASSWORD = "p@ss/w:rd#%?'\" é"


def diagnose(url: str, *allowed: str) -> ConnectionString:
    return describe_url(url, "argument", frozenset(allowed))


def test_the_parts_have_the_names_of_urllib() -> None:
    parsed = diagnose("postgresql+asyncpg://me:x@db.local:6000/app_test?sslmode=disable")
    assert parsed
    assert (parsed.scheme, parsed.username, parsed.hostname, parsed.port) == (
        "postgresql+asyncpg",
        "me",
        "db.local",
        6000,
    )
    assert (parsed.path, parsed.database, parsed.parameters) == (
        "/app_test",
        "app_test",
        (("sslmode", "disable"),),
    )
    assert parsed.looks_like_tests


def test_of_a_password_not_even_the_length_is_shown() -> None:
    texts = set()
    for password in ("a", PASSWORD * 3):
        parsed = diagnose(f"postgresql://me:{quote(password, safe='')}@h/app_test")
        assert parsed.has_password
        texts.add(str(parsed) + json.dumps(parsed.to_plain()) + repr(parsed))
    assert len(texts) == 1


def test_a_url_without_password_says_so() -> None:
    parsed = diagnose("postgresql://me@h/app_test")
    assert not parsed.has_password
    assert "password: not given" in str(parsed)


@pytest.mark.parametrize(
    ("url", "name", "words"),
    [
        ("postgresql://u:p@h/shop", "test database", "app_test"),
        ("postgresql://u:p@h", "test database", "app_test"),
        ("postgresql://u:p@h/a_test?sslmode=maybe", "sslmode", "verify-full"),
        ("postgresql://u:p@h/a_test?connect_timeout=3", "parameter connect_timeout", "take connect_timeout out"),
    ],
)
def test_each_violation_has_its_remedy(url: str, name: str, words: str) -> None:
    parsed = diagnose(url)
    assert not parsed
    (failed,) = parsed.failed
    assert failed.name == name
    assert failed.remedy is not None
    assert words in failed.remedy


def test_an_allowed_name_is_accepted() -> None:
    assert not diagnose("postgresql://u:p@h/shop").looks_like_tests
    assert diagnose("postgresql://u:p@h/shop", "shop").looks_like_tests


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:12/s3cret@h/a_test",
        "postgresql://u:s3cret#x@h/a_test",
        "postgresql://u:p@1/s3cret@h/a_test",
        "u:s3cret@h/a_test",
        "postgresql://u:s3cret@[h/a_test",
        "",
    ],
)
def test_a_url_that_cannot_be_read_is_never_repeated(url: str) -> None:
    parsed = diagnose(url)
    assert not parsed
    assert parsed.hostname is None
    assert "s3cret" not in str(parsed) + repr(parsed)
    assert "percent-encode" in str(parsed)


def test_a_missing_user_is_told_and_no_failure() -> None:
    parsed = diagnose("postgresql://h/a_test")
    assert parsed
    assert "operating system" in str(parsed)
