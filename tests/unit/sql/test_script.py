"""Files of SQL are cut where psql would cut them; what is for psql alone is set apart."""

from __future__ import annotations

import resource

import pytest

from dataflow.testing.sql.script import Refused, Statement, split


def texts(script: str) -> list[str]:
    return [piece.text for piece in split(script)]


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("", []),
        (" ;; -- nothing\n/* ; */", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1 ;\n-- why\nSELECT 2 -- last", ["SELECT 1", "SELECT 2 -- last"]),
        ("SELECT ';'; SELECT 2", ["SELECT ';'", "SELECT 2"]),
        ("SELECT E'\\';'; SELECT 2", ["SELECT E'\\';'", "SELECT 2"]),
        ("SELECT '\\'; SELECT 2", ["SELECT '\\'", "SELECT 2"]),
        ("SELECT U&'d\\0061;'; SELECT 2", ["SELECT U&'d\\0061;'", "SELECT 2"]),
        ('SELECT U&"d;" ; SELECT 2', ['SELECT U&"d;"', "SELECT 2"]),
        ("SELECT $$;$$; SELECT 2", ["SELECT $$;$$", "SELECT 2"]),
        ("SELECT $a$;$$;$a$; SELECT 2", ["SELECT $a$;$$;$a$", "SELECT 2"]),
        ("SELECT 1$$;$$; SELECT 2", ["SELECT 1$$;$$", "SELECT 2"]),
        ("/* a /* ; */ ; */ SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT 1 /* ; */ + 1;", ["SELECT 1 /* ; */ + 1"]),
        ("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3",
         ["CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 3"]),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
         ["CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
          "SELECT 3"]),
        ("BEGIN; COMMIT; END", ["BEGIN", "COMMIT", "END"]),
        ("SELECT a.begin, atomic; SELECT 2", ["SELECT a.begin, atomic", "SELECT 2"]),
    ],
)  # fmt: skip
def test_statements(script: str, statements: list[str]) -> None:
    assert texts(script) == statements


@pytest.mark.parametrize("open_end", ["'abc;", '"abc; \\x', "$$abc;", "$a$abc; $$", "/* abc; \\x", "E'a\\';"])
def test_what_has_no_end_reaches_the_server_whole(open_end: str) -> None:
    """The server says what is wrong; nothing after it is silently lost or taken for a command."""
    assert texts(f"SELECT 1; SELECT {open_end}\n;") == ["SELECT 1", f"SELECT {open_end}\n;"]


def test_a_comment_without_end_is_not_lost_even_if_nothing_else_is_there() -> None:
    assert texts("SELECT 1; /* DROP TABLE t;") == ["SELECT 1", "/* DROP TABLE t;"]


def test_lines_are_those_on_which_statements_begin() -> None:
    script = (
        "-- one\nSELECT 1;\n\n  SELECT\n 2; SELECT 3;\nCOPY t FROM stdin;\n1\n2\n\\.\nSELECT 4;\n\\connect x\n"
    )
    assert [(piece.text[:6], piece.line) for piece in split(script)] == [
        ("SELECT", 2),
        ("SELECT", 4),
        ("SELECT", 5),
        ("COPY t", 6),
        ("SELECT", 10),
        ("\\conne", 11),
    ]


@pytest.mark.parametrize(
    "copy", ["COPY t FROM stdin", "copy public.t (a, b) from STDIN with (format csv)", 'COPY "from" FROM stdin']
)
def test_rows_follow_copy_from_stdin_up_to_the_line_that_ends_them(copy: str) -> None:
    script = f"{copy}; -- rows\n1;\t'\n\\N\t\\\\.\n\\.\nSELECT 1;"
    assert list(split(script)) == [Statement(copy, 1, "1;\t'\n\\N\t\\\\.\n"), Statement("SELECT 1", 5)]


@pytest.mark.parametrize(
    ("script", "data"),
    [
        ("COPY t FROM stdin;\n\\.\n", ""),
        ("COPY t FROM stdin;\r\n1\r\n\\.\r\n", "1\r\n"),
        ("COPY t FROM stdin;\n1\n", "1\n"),
        ("COPY t FROM stdin;", ""),
        ("COPY t FROM stdin", ""),
    ],
)
def test_rows_at_the_edges(script: str, data: str) -> None:
    assert [piece.data for piece in split(script) if isinstance(piece, Statement)] == [data]


@pytest.mark.parametrize("copy", ["COPY t FROM '/tmp/x'", "COPY t TO stdout", "COPY t FROM PROGRAM 'stdin'"])
def test_no_rows_follow_other_forms_of_copy(copy: str) -> None:
    assert list(split(f"{copy};\nSELECT 1")) == [Statement(copy, 1), Statement("SELECT 1", 2)]


def test_a_statement_between_copy_and_its_rows_is_refused() -> None:
    pieces = list(split("COPY t FROM stdin; SELECT 1;\n1\n\\.\n"))
    assert pieces[0] == Refused("SELECT 1;", 1)
    assert pieces[0].command is None


def test_commands_to_psql_are_set_apart_with_their_names() -> None:
    pieces = list(split("SELECT 1;\n\\connect shop\nSELECT 2 \\gexec\nSELECT 3;"))
    assert pieces == [
        Statement("SELECT 1", 1),
        Refused("\\connect shop", 2),
        Refused("\\gexec", 3),
        Statement("SELECT 3", 4),
    ]
    assert [piece.command for piece in pieces if isinstance(piece, Refused)] == ["\\connect", "\\gexec"]


def test_the_lines_that_pg_dump_writes_for_psql_are_skipped() -> None:
    assert texts("\\restrict Abc123\n\nSELECT 1;\n\\unrestrict Abc123\n") == ["SELECT 1"]


def test_such_a_line_within_a_statement_is_not_skipped_over_it() -> None:
    assert texts("SELECT 1\n\\restrict x\n;") == ["\\restrict x"]


def test_backslashes_in_strings_and_comments_are_no_commands() -> None:
    script = "SELECT '\\x', \"\\x\", $$\\x$$ -- \\x\n/* \\x */"
    assert texts(script) == [script]


def test_a_long_string_needs_no_more_memory_than_a_few_times_its_length() -> None:
    long = (
        "INSERT INTO t VALUES ('"
        + "ab''" * 1_000_000
        + "'); INSERT INTO t VALUES (E'"
        + "a\\'" * 1_000_000
        + "')"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(texts(long)) == 2
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib * 1024 < 10 * len(long)
