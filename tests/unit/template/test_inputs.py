"""The files that a schema is made from: found in a fixed order, and fingerprinted by what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow.testing.errors import SchemaFailed
from dataflow.testing.template.inputs import describe, fingerprint, inputs, read, shown


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.sql", "a-z.sql", "a/2.sql", "a/10.sql", "a/note.txt", "__pycache__/x.sql", "empty/.keep"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def names(*paths: Path, suffix: str = "") -> list[str]:
    return [file.name for file in inputs(paths, suffix)]


def test_a_folder_stands_for_its_files_sorted_by_path_part_by_part(tree: Path) -> None:
    assert names(tree, suffix=".sql") == ["a/10.sql", "a/2.sql", "a-z.sql", "b.sql"]


def test_what_programs_write_beside_their_sources_does_not_count(tree: Path) -> None:
    assert "__pycache__/x.sql" not in names(tree)


def test_paths_keep_the_order_in_which_they_are_named(tree: Path) -> None:
    assert names(tree / "b.sql", tree / "a", suffix=".sql") == ["b.sql", "10.sql", "2.sql"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.sql", ["a-z.sql", "b.sql"]),
        ("a/*", ["10.sql", "2.sql", "note.txt"]),
        ("**/*.txt", ["a/note.txt"]),
        ("[ab]*", ["a/10.sql", "a/2.sql", "a/note.txt", "a-z.sql", "b.sql"]),
    ],
)
def test_patterns_find_files_and_what_is_in_folders_once(tree: Path, pattern: str, found: list[str]) -> None:
    assert names(tree / pattern) == found


def test_a_name_with_the_characters_of_a_pattern_is_that_file(tree: Path) -> None:
    (tree / "[a].sql").write_text("x")
    assert names(tree / "[a].sql") == ["[a].sql"]


def test_everything_missing_is_listed_at_once_with_its_reason(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(SchemaFailed) as raised:
        inputs([tree / "b.sql", tree / "c.sql", tree / "empty", tree / "*.py"], ".sql")
    assert raised.value.what == (
        "the schema cannot be built from files that are not there:\n"
        "    - c.sql does not exist\n"
        "    - empty has no .sql file in it\n"
        "    - *.py fits no file"
    )
    assert "relative to another directory" in str(raised.value)


def test_a_list_with_spaces_is_told_about_commas(tree: Path) -> None:
    with pytest.raises(SchemaFailed, match="does not exist; several are separated by commas"):
        inputs([tree / "a.sql b.sql"])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaFailed, match=r"gone\.sql cannot be read: No such file"):
        read(tmp_path / "gone.sql")


def test_a_fingerprint_depends_on_kind_contents_order_and_limits_between_them() -> None:
    prints = [
        fingerprint("a", b"x", b"y"),
        fingerprint("b", b"x", b"y"),
        fingerprint("a", b"y", b"x"),
        fingerprint("a", b"xy"),
        fingerprint("a", b"xy", b""),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint("a", b"x", b"y") == prints[0]
    assert int(prints[0], 16)


def test_descriptions_are_short_and_never_fail(tree: Path) -> None:
    assert describe([tree / "b.sql", tree / "a", tree / "gone"], ".sql") == "b.sql, a/ (2 files), gone"
    assert describe([tree / "empty"]) == "empty/ (1 file)"


def test_paths_are_shown_relative_where_that_is_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown(tmp_path / "here" / "x.sql") == "x.sql"
    assert shown(tmp_path / "x.sql") == str(tmp_path / "x.sql")
