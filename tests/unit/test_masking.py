"""Passwords are taken out of whatever a person may see."""

from __future__ import annotations

import pytest

from dataflow.testing.masking import mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:hunter2@h/d", "postgresql://u:***@h/d"),
        ("see postgresql+asyncpg://u:hunter2@h:1/d?x=1 there", "see postgresql+asyncpg://u:***@h:1/d?x=1 there"),
        ("postgresql://u:hun@ter2@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:hunter2@h/d", "postgresql://:***@h/d"),
        ("POSTGRES://u:hunter2@h/d", "POSTGRES://u:***@h/d"),
        ("password=hunter2 host=h", "password=*** host=h"),
        ("PGPASSWORD=hunter2", "PGPASSWORD=***"),
        ("postgresql://h/d?password=hunter2&x=1", "postgresql://h/d?password=***&x=1"),
        ("password = 'hun\\'ter2' x", "password = *** x"),
        ('{"password": "hunter2"}', '{"password": ***}'),
        ("{'password': 'hunter2'}", "{'password': ***}"),
        ("CREATE ROLE a LOGIN PASSWORD 'hun''ter2'", "CREATE ROLE a LOGIN PASSWORD '***'"),
        ("EXECUTE 'ALTER ROLE a PASSWORD ''hunter2''';", "EXECUTE 'ALTER ROLE a PASSWORD '***'';"),
        ("ALTER ROLE a PASSWORD ''; SELECT 'x'", "ALTER ROLE a PASSWORD '***'; SELECT 'x'"),
        ("ALTER ROLE a PASSWORD $$hunter2$$", "ALTER ROLE a PASSWORD '***'"),
        ("ALTER ROLE a PASSWORD U&'hunter2'", "ALTER ROLE a PASSWORD '***'"),
        ("ALTER ROLE a PASSWORD/* x */'hunter2'", "ALTER ROLE a PASSWORD/* x */'***'"),
        ("options=-cfoo.password%3Dhunter2", "options=-cfoo.password%3D***"),
        ("ALTER USER a WITH ENCRYPTED PASSWORD E'hunter2'", "ALTER USER a WITH ENCRYPTED PASSWORD '***'"),
    ],
)
def test_passwords_are_replaced(text: str, shown: str) -> None:
    assert mask(text) == shown
    assert mask(mask(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "SELECT password FROM users",
        'password authentication failed for user "a"',
        "postgresql://u@h/d",
        "postgresql://h:5432/d",
        "see https://example.org/a@b",
        "a column password_hash, and mail to a@b.org",
    ],
)
def test_what_holds_no_password_stays_readable(text: str) -> None:
    assert mask(text) == text


def test_known_secrets_are_replaced_the_longest_first() -> None:
    assert mask("abc and abcdef", "abc", "abcdef", None, "") == "*** and ***"


def test_masking_takes_no_time_for_texts_that_are_made_to_cost_some() -> None:
    text = "password" + "/**/" * 5_000 + " " * 5_000
    assert mask(text) == text
