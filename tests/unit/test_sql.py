"""Reading the kinds of statements from a string of SQL."""

from __future__ import annotations

import pytest

from dataflow.testing.isolation.sql import script


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "commit;",
        "  /* why */ COMMIT WORK",
        "-- why\nEND",
        "END TRANSACTION",
        "COMMIT AND CHAIN",
        "SELECT 1; COMMIT",
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
    assert script(sql).commits is not None


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
    assert script(sql).commits is None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ROLLBACK", True),
        ("abort", True),
        ("ROLLBACK WORK", True),
        ("ROLLBACK TRANSACTION;", True),
        ("ROLLBACK AND CHAIN", True),
        ("SELECT 1; ROLLBACK", True),
        ("ROLLBACK TO SAVEPOINT a", False),
        ("ROLLBACK TO a", False),
        ("ROLLBACK WORK TO SAVEPOINT a", False),
        ("ROLLBACK PREPARED 'x'", False),
        ("SELECT 'ROLLBACK'", False),
    ],
)
def test_rollbacks_of_the_whole_transaction(sql: str, expected: bool) -> None:
    assert script(sql).rolls_back is expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SAVEPOINT a", (("set", "a"),)),
        ("savepoint A; RELEASE a", (("set", "a"), ("release", "a"))),
        ("RELEASE SAVEPOINT b", (("release", "b"),)),
        ("ROLLBACK TO c", (("rollback", "c"),)),
        ("ROLLBACK WORK TO SAVEPOINT c", (("rollback", "c"),)),
        ("ROLLBACK TRANSACTION TO d", (("rollback", "d"),)),
        ('SAVEPOINT "My ""own"""', (("set", 'My "own"'),)),
        ("ROLLBACK", ()),
        ("ROLLBACK AND CHAIN", ()),
        ("SELECT 'SAVEPOINT a'", ()),
    ],
)
def test_changes_of_savepoints(sql: str, expected: tuple[tuple[str, str], ...]) -> None:
    assert script(sql).savepoint_changes == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE TABLE t (n int)", True),
        ("ALTER TABLE t ADD m int", True),
        ("DO $$ BEGIN END $$", True),
        ("SELECT 1; DROP TABLE t", True),
        ("SELECT 1", False),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", False),
        ("(SELECT 1)", False),
        ("COPY t FROM STDIN", False),
        ("SET work_mem = '1MB'", False),
    ],
)
def test_what_counts_as_schema_work(sql: str, expected: bool) -> None:
    assert script(sql).changes_schema is expected


def test_a_very_long_string_is_read_in_bounded_time_and_not_kept() -> None:
    long = "INSERT INTO t VALUES " + ",".join(["('x')"] * 20_000)
    assert script(long).commits is None
    assert script(long + "; COMMIT").commits == "COMMIT"
    assert script(long) is not script(long)
    assert script("SELECT 1") is script("SELECT 1")
