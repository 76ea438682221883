"""Nothing of a password is shown, not even when the URL around it is wrong."""

from __future__ import annotations

import pytest

from dataflow.testing.diagnosis.hiding import (
    hidden,
    shown_url,
    shown_variable,
)


def test_a_url_is_shown_without_its_password_and_that_of_its_parameters() -> None:
    shown = shown_url("postgresql://me:p%40ss@host/db?sslpassword=hush&sslmode=require")
    assert shown == "postgresql://me:***@host:5432/db?sslpassword=***&sslmode=require"


@pytest.mark.parametrize("text", ["me:s3cret@host/db", "s3cret", "mysql://me:s3cret@host/db", "http://[s3cret"])
def test_what_is_no_postgresql_url_is_not_shown(text: str) -> None:
    assert "s3cret" not in shown_url(text)


def test_variables_are_shown_unless_they_hold_a_secret() -> None:
    assert shown_variable("DATAFLOW_TDD_TIMEOUT", "15") == "15"
    assert shown_variable("PGPASSWORD", "s3cret") == "***"
    assert (
        shown_variable("TEST_DATABASE_URL", "postgresql://u:s3cret@h/d_test")
        == "postgresql://u:***@h:5432/d_test"
    )
    assert shown_variable("TEST_DATABASE_URL", "") == ""
    assert shown_variable("DATAFLOW_TDD_TIMEOUT", "postgresql://u:s3cret@h/d") == "postgresql://u:***@h/d"


def test_known_secrets_are_masked_wherever_they_stand() -> None:
    assert hidden("the server said s3cret", "s3cret") == "the server said ***"
