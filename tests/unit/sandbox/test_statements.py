"""Which statements of a string of SQL end a transaction by keeping it."""

from __future__ import annotations

import pytest

from dataflow.testing.sandbox.statements import Kind, read


def commits(sql: str) -> bool:
    return any(statement.kind in (Kind.COMMIT, Kind.TWO_PHASE) for statement in read(sql).statements)


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "commit;",
        "commit and chain",
        "  /* why */ COMMIT WORK",
        "-- why\nEND",
        "END TRANSACTION",
        "SELECT 1; END",
        "SELECT ';'; COMMIT; SELECT 2",
        "SELECT $$;$$; COMMIT",
        "SELECT $a$ $$ ; $a$; COMMIT",
        "/* a /* nested */ comment */ COMMIT",
        "SELECT E'it\\'s'; COMMIT",
        "SELECT 'it''s'; COMMIT",
        'SELECT 1 AS "a;b"; COMMIT',
        "SELECT CASE WHEN true THEN 1 END; COMMIT",
        "PREPARE TRANSACTION 'x'",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END; END; COMMIT",
    ],
)
def test_commits_are_found(sql: str) -> None:
    assert commits(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        ";",
        "SELECT 'COMMIT'",
        "SELECT 1 -- ; COMMIT",
        "SELECT 1 /* ; COMMIT */",
        "SELECT $$; COMMIT; $$",
        'SELECT 1 AS "; COMMIT"',
        "SELECT 'it''s ; COMMIT'",
        "SELECT E'it\\'s ; COMMIT'",
        "DO $$ BEGIN PERFORM 1; END $$",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1; END'",
        "COMMIT PREPARED 'x'",
        "PREPARE s AS SELECT 1",
        "SELECT commit FROM history",
        "COMMENT ON TABLE t IS 'x'",
        "ROLLBACK",
        "/* never closed COMMIT",
        "\ufeffCOMMIT",  # to the server it is a name
    ],
)
def test_nothing_else_is_taken_for_a_commit(sql: str) -> None:
    assert not commits(sql)
