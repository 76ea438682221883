"""Who brings the programs, in which order, and what is said when nobody does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dataflow.testing.errors import BinariesNotFound
from dataflow.testing.server.binaries import (
    PROGRAMS,
    DebianDirectories,
    GivenDirectory,
    SearchPath,
    Wheel,
    default_providers,
    find_binaries,
)


def _programs(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for program in PROGRAMS:
        (directory / program).touch()
    return directory


def test_the_first_provider_that_has_both_programs_wins(tmp_path: Path) -> None:
    incomplete = tmp_path / "a"
    incomplete.mkdir()
    (incomplete / PROGRAMS[1]).touch()
    second, third = _programs(tmp_path / "b"), _programs(tmp_path / "c")
    path = os.pathsep.join(map(str, (incomplete, second)))
    found = find_binaries((SearchPath(path), GivenDirectory(third)))
    assert found.directory == second


def test_links_on_path_lead_to_the_real_directory(tmp_path: Path) -> None:
    """Distributions link `postgres` alone to a common place; `initdb` is beside the real one."""
    real = _programs(tmp_path / "real")
    links = tmp_path / "links"
    links.mkdir()
    (links / PROGRAMS[1]).symlink_to(real / PROGRAMS[1])
    assert find_binaries((SearchPath(str(links)),)).directory == real


def test_of_debians_directories_the_newest_is_first(tmp_path: Path) -> None:
    for version in ("9.6", "15", "18", "other"):
        _programs(tmp_path / version / "bin")
    found = [candidate.directory.parent.name for candidate in DebianDirectories(tmp_path).candidates()]
    assert found == ["18", "15", "9.6"]


def test_a_directory_that_was_asked_for_is_the_only_one_searched(tmp_path: Path) -> None:
    with pytest.raises(BinariesNotFound) as raised:
        find_binaries(default_providers(tmp_path / "nowhere", str(_programs(tmp_path / "b"))))
    assert f"{tmp_path}/nowhere (DATAFLOW_TDD_POSTGRES_BIN)" in str(raised.value)
    assert "PATH" not in str(raised.value)


def test_the_error_lists_every_place_and_the_command_that_helps() -> None:
    with pytest.raises(BinariesNotFound) as raised:
        find_binaries((Wheel("no-such-wheel"), SearchPath(""), DebianDirectories(Path("/nowhere"))))
    text = str(raised.value)
    for place in ("the Python package no-such-wheel", "the directories of PATH", "/nowhere/*/bin"):
        assert f"- {place}" in text
    assert 'pip install "dataflow-tdd[embedded]"' in text


def test_a_wheel_is_found_and_named_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_postgres"
    _programs(package / "pginstall" / "bin")
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "some_postgres-17.4.1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    found = find_binaries((Wheel("some-postgres"),))
    assert found.directory == package / "pginstall" / "bin"
    assert found.provider == "some-postgres 17.4.1"
    assert "some_postgres" not in sys.modules
