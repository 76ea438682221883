"""Files of SQL: their fingerprint, their encoding, and what in them no server understands."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow.testing.errors import SchemaFailed
from dataflow.testing.template.files import SqlFiles, read_script


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_fingerprint_is_that_of_contents_and_order_wherever_they_are(tmp_path: Path) -> None:
    for checkout in ("here", "there"):
        written(tmp_path / checkout / "1.sql", "SELECT 1")
        written(tmp_path / checkout / "2.sql", "SELECT 2")
    here = SqlFiles(tmp_path / "here").fingerprint()
    assert SqlFiles(tmp_path / "there").fingerprint() == here
    assert SqlFiles(tmp_path / "there" / "1.sql", tmp_path / "there" / "2.sql").fingerprint() == here
    assert SqlFiles(tmp_path / "there" / "2.sql", tmp_path / "there" / "1.sql").fingerprint() != here


def test_the_fingerprint_follows_each_change(tmp_path: Path) -> None:
    files = SqlFiles(tmp_path)
    written(tmp_path / "1.sql", "SELECT 1")
    prints = [files.fingerprint()]
    written(tmp_path / "1.sql", "SELECT 2")
    prints.append(files.fingerprint())
    written(tmp_path / "deeper" / "2.sql", "")
    prints.append(files.fingerprint())
    written(tmp_path / "not.txt", "other")
    assert files.fingerprint() == prints[-1]
    assert len(set(prints)) == 3


def test_relative_paths_are_those_of_the_moment_when_they_were_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "a" / "x.sql", "SELECT 1")
    monkeypatch.chdir(tmp_path / "a")
    files = SqlFiles(Path("x.sql"))
    monkeypatch.chdir(tmp_path)
    assert files.fingerprint()
    assert files.describe() == "x.sql"


def test_missing_files_are_a_clear_error_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(SchemaFailed, match=r"a\.sql does not exist\n.*b\.sql does not exist"):
        SqlFiles(tmp_path / "a.sql", tmp_path / "b.sql").fingerprint()


def test_a_byte_order_mark_is_no_part_of_the_first_statement(tmp_path: Path) -> None:
    statements = read_script(written(tmp_path / "x.sql", b"\xef\xbb\xbfSELECT '\xc3\xa4'"))
    assert [statement.text for statement in statements] == ["SELECT 'ä'"]


def test_other_bytes_than_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    path = written(tmp_path / "x.sql", b"SELECT 1;\n\nSELECT '\xe4'")
    with pytest.raises(SchemaFailed) as raised:
        read_script(path)
    assert raised.value.what == f"{path}, line 3: byte 0xe4 is not UTF-8"
    assert "iconv -f LATIN1 -t UTF-8 x.sql" in str(raised.value)


@pytest.mark.parametrize(
    ("command", "way_out"),
    [
        ("\\connect shop", "without the option --create"),
        ("\\c shop", "without the option --create"),
        ("\\i other.sql", "name that file in its place"),
        ("\\copy t FROM 'x.csv'", "COPY … FROM stdin"),
        ("\\set x 1", "let psql run the file"),
    ],
)
def test_commands_to_psql_are_refused_by_name_with_a_way_out(tmp_path: Path, command: str, way_out: str) -> None:
    path = written(tmp_path / "x.sql", f"SELECT 1;\n{command}\n")
    with pytest.raises(SchemaFailed) as raised:
        read_script(path)
    assert raised.value.what == f"{path}, line 2: {command.split()[0]} is a command to psql, and no SQL"
    assert way_out in (raised.value.remedy or "")


def test_a_statement_between_copy_and_its_rows_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.sql", "COPY t FROM stdin; SELECT 1;\n1\n\\.\n")
    with pytest.raises(SchemaFailed, match="line 1: a statement on the line of COPY … FROM stdin"):
        read_script(path)
