"""Where statements begin in a string of SQL, and what they would do to a test."""

from __future__ import annotations

import pytest

from dataflow.testing.isolation.sql import quote_identifier, script


@pytest.mark.parametrize(
    ("sql", "heads"),
    [
        ("", ()),
        (" ; ;; -- nothing", ()),
        ("SELECT 1", (("select", "1"),)),
        ("select a from b where c", (("select", "a", "from", "b"),)),
        ("(SELECT 1) UNION (SELECT 2)", (("select", "1", ")", "union"),)),
        ("Begin;Commit", (("begin",), ("commit",))),
        ("/* ; */ END -- ;", (("end",),)),
        ("/* a /* b */ ; */ END", (("end",),)),
        ("/* never closed ; COMMIT", ()),
        ("SELECT ';', $$;$$, $x$;$$;$x$, \";\"; END", (("select", "';'", ",", "$$"), ("end",))),
        ("SELECT $never closed; COMMIT", (("select", "$", "never", "closed"), ("commit",))),
        ("SELECT $x$ never closed; COMMIT", (("select", "$x$"),)),
        ("SELECT a$$; COMMIT", (("select", "a$$"), ("commit",))),
        ("SELECT 1 --\r; COMMIT", (("select", "1"), ("commit",))),
        ("SELECT 'it''s ;'; END", (("select", "'it''s ;'"), ("end",))),
        ("SELECT E'\\';'; END", (("select", "E'\\';'"), ("end",))),
        ("SELECT '\\'; END", (("select", "'\\'"), ("end",))),
        ("SELECT E'a'\n'\\';'; END", (("select", "E'a'\n'\\';'"), ("end",))),
        ('SAVEPOINT "Mine;"', (("savepoint", '"Mine;"'),)),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END; COMMIT",
            (("create", "function", "f", "("), ("commit",)),
        ),
    ],
)
def test_statements_begin_with(sql: str, heads: tuple[tuple[str, ...], ...]) -> None:
    assert tuple(head[:4] for head in script(sql).heads) == heads


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ROLLBACK", True),
        ("abort", True),
        ("ABORT WORK", True),
        ("ROLLBACK WORK", True),
        ("ROLLBACK TRANSACTION;", True),
        ("ROLLBACK AND CHAIN", True),
        ("ROLLBACK AND NO CHAIN", True),
        ("SELECT 1; ROLLBACK", True),
        ("ROLLBACK TO SAVEPOINT a", False),
        ("ROLLBACK TO a", False),
        ("ROLLBACK WORK TO SAVEPOINT a", False),
        ("ROLLBACK PREPARED 'x'", False),
        ("SELECT 'ROLLBACK'", False),
        ("BEGIN", False),
    ],
)
def test_rollbacks_of_the_whole_transaction(sql: str, expected: bool) -> None:
    assert script(sql).rolls_back is expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SAVEPOINT a", (("set", "a"),)),
        ("savepoint A; RELEASE a", (("set", "a"), ("release", "a"))),
        ("RELEASE SAVEPOINT B", (("release", "b"),)),
        ("ROLLBACK TO c", (("rollback", "c"),)),
        ('ROLLBACK TO SAVEPOINT "a ""b"', (("rollback", 'a "b'),)),
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
    ("sql", "schema", "session"),
    [
        ("SELECT 1", False, False),
        ("(SELECT 1)", False, False),
        ("INSERT INTO t VALUES (1)", False, False),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", False, False),
        ("COPY t FROM STDIN", False, False),
        ("SET work_mem = '1MB'", False, False),
        ("SELECT 1 INTO t", True, False),
        ("WITH x AS (SELECT 1) SELECT * INTO t FROM x", True, False),
        ("CREATE TABLE t (id int)", True, False),
        ("ALTER TABLE t ADD m int", True, False),
        ("DO $$ BEGIN END $$", True, False),
        ("CALL p()", True, False),
        ("SELECT 1; DROP TABLE t", True, False),
        ("PREPARE x AS SELECT 1", True, True),
        ("DISCARD PLANS", True, True),
    ],
)
def test_what_is_left_in_schema_and_session(sql: str, schema: bool, session: bool) -> None:
    read = script(sql)
    assert (read.changes_schema, read.leaves_session_state) == (schema, session)


def test_a_very_long_string_is_read_in_bounded_time_and_not_kept() -> None:
    long = "INSERT INTO t VALUES " + ",".join(["('x')"] * 20_000)
    assert not script(long).controls_transaction
    assert script(long + "; COMMIT").controls_transaction
    assert script(long) is not script(long)
    assert script("SELECT 1") is script("SELECT 1")


@pytest.mark.parametrize(
    ("name", "quoted"), [("a", '"a"'), ('a"; COMMIT; --', '"a""; COMMIT; --"'), ("ä €", '"ä €"')]
)
def test_quoted_names(name: str, quoted: str) -> None:
    assert quote_identifier(name) == quoted


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        quote_identifier(name)
