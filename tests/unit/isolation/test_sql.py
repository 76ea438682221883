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
def test_heads(sql, heads):
    assert tuple(head[:4] for head in script(sql).heads) == heads


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("COMMIT", "COMMIT"),
        ("commit and chain", "COMMIT AND"),
        ("END WORK", "END WORK"),
        ("SELECT 1; END", "END"),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
        ("PREPARE x AS SELECT 1", None),
        ("COMMIT PREPARED 'x'", None),
        ("SELECT 'COMMIT'", None),
        ("ROLLBACK", None),
    ],
)
def test_commits(sql, words):
    assert script(sql).commits == words
    assert words is None or script(sql).controls_transaction


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("ROLLBACK", True),
        ("ABORT WORK", True),
        ("ROLLBACK AND NO CHAIN", True),
        ("ROLLBACK TO x", False),
        ("ROLLBACK WORK TO SAVEPOINT x", False),
        ("ROLLBACK PREPARED 'x'", False),
        ("BEGIN", False),
    ],
)
def test_rolls_back(sql, answer):
    assert script(sql).rolls_back is answer


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("SAVEPOINT a; RELEASE a", (("set", "a"), ("release", "a"))),
        ("RELEASE SAVEPOINT A", (("release", "a"),)),
        ('ROLLBACK TO SAVEPOINT "a ""b"', (("rollback", 'a "b'),)),
        ("ROLLBACK TRANSACTION TO a", (("rollback", "a"),)),
        ("ROLLBACK AND CHAIN", ()),
        ("SELECT 1", ()),
    ],
)
def test_savepoint_changes(sql, changes):
    assert script(sql).savepoint_changes == changes


@pytest.mark.parametrize(
    ("sql", "schema", "session"),
    [
        ("SELECT 1", False, False),
        ("(SELECT 1)", False, False),
        ("INSERT INTO t VALUES (1)", False, False),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", False, False),
        ("SELECT 1 INTO t", True, False),
        ("WITH x AS (SELECT 1) SELECT * INTO t FROM x", True, False),
        ("CREATE TABLE t (id int)", True, False),
        ("DO $$ $$", True, False),
        ("CALL p()", True, False),
        ("SELECT 1; DROP TABLE t", True, False),
        ("PREPARE x AS SELECT 1", True, True),
        ("DISCARD PLANS", True, True),
        ("SET work_mem = '1MB'", False, False),
    ],
)
def test_what_is_left_in_schema_and_session(sql, schema, session):
    read = script(sql)
    assert (read.changes_schema, read.leaves_session_state) == (schema, session)


@pytest.mark.parametrize(
    ("name", "quoted"), [("a", '"a"'), ('a"; COMMIT; --', '"a""; COMMIT; --"'), ("ä €", '"ä €"')]
)
def test_quoted_names(name, quoted):
    assert quote_identifier(name) == quoted


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_cannot_be_a_name(name):
    with pytest.raises(ValueError, match="cannot be a name"):
        quote_identifier(name)
