"""The words of errors: file, line, statement, what the server said, and a way out."""

from __future__ import annotations

import pytest

from dataflow.testing.template.failure import Said, missing_extension, of_statement, shortened


def test_everything_that_is_known_is_told_in_order() -> None:
    said = Said("no", detail="because", hint="try", state="42601", context="COPY t, line 2")
    assert str(of_statement("a.sql", 7, "SELECT 1", said)) == (
        "the schema could not be built: a.sql, line 7: no\n"
        "    detail: because\n"
        "    hint: try\n"
        "    context: COPY t, line 2\n"
        "    statement: SELECT 1\n"
        "  way out: correct the statement and run again; nothing half-built was kept"
    )


def test_the_line_is_that_of_the_mistake_within_a_long_statement() -> None:
    statement = "CREATE TABLE t (\n  a int,\n  b itn)"
    said = Said("type", position=statement.index("itn") + 1)
    assert "a.sql, line 9:" in of_statement("a.sql", 7, statement, said).what


def test_passwords_are_masked() -> None:
    said = Said("no", detail="password=hunter2")
    assert "hunter2" not in str(of_statement("a.sql", 1, "CREATE ROLE x PASSWORD 'hunter2'", said))


@pytest.mark.parametrize(
    ("statement", "said", "extension"),
    [
        ("CREATE EXTENSION pgcrypto", Said('extension "pgcrypto" is not available', state="0A000"), "pgcrypto"),
        (
            'CREATE EXTENSION IF NOT EXISTS "uuid-ossp"',
            Said("Erweiterung ist nicht da", state="0A000"),
            "uuid-ossp",
        ),
        (
            "create extension postgis schema x",
            Said('could not open extension control file "/a/postgis.control": No', state="58P01"),
            "postgis",
        ),
        ("DO $$ … $$", Said('extension "citus" is not available', state="0A000"), "citus"),
    ],
)
def test_a_missing_extension_is_named_with_servers_that_have_it(
    statement: str, said: Said, extension: str
) -> None:
    error = of_statement("a.sql", 1, statement, said)
    assert error.cause == f"the PostgreSQL in use does not have the extension {extension}"
    assert f"use a PostgreSQL that has {extension}" in str(error)
    assert "the embedded server lacks pgcrypto, uuid-ossp, PostGIS" in str(error)
    assert "DATAFLOW_TDD_POSTGRES_BIN" in str(error)
    assert "TEST_DATABASE_URL" in str(error)


def test_what_made_the_extension_unneeded_is_told() -> None:
    said = Said('extension "pgcrypto" is not available', state="0A000")
    assert "gen_random_uuid() needs no extension" in str(of_statement("a", 1, "CREATE EXTENSION pgcrypto", said))


@pytest.mark.parametrize(
    ("text", "extension"),
    [
        ('ERROR:  extension "postgis" is not available\nDETAIL:  …', "postgis"),
        ('could not open extension control file "/usr/share/16/extension/uuid-ossp.control"', "uuid-ossp"),
        ('extension "x" already exists', None),
    ],
)
def test_missing_extensions_in_the_output_of_programs(text: str, extension: str | None) -> None:
    assert missing_extension(text) == extension


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("  SELECT 1 ", "SELECT 1"),
        ("a\nb  \n", "a\n      b"),
        ("\n".join("abcdefgh"), "a\n      b\n      c\n      d\n      e\n      f …"),
        ("x" * 400, "x" * 300 + " …"),
    ],
)
def test_statements_are_shown_by_their_beginning(statement: str, shown: str) -> None:
    assert shortened(statement) == shown
