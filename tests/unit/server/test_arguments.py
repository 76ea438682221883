"""The command lines and the access rules, for each version and each kind of server."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow.testing.server.binaries import Binaries
from dataflow.testing.server.bringup import hba_lines
from dataflow.testing.server.cluster import Programs, initdb_arguments, major, setup_sql, version_of
from dataflow.testing.server.postgres import Access, server_arguments

_BINARIES = Binaries(Path("/pg/bin"), "test")
_SOCKET = Access(Path("/s"), 5432)
_TCP = Access(Path("/s"), 5433, ("127.0.0.1", "::1"))


def _settings(access: Access) -> dict[str, str]:
    words = server_arguments(_BINARIES, Path("/d"), access)
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_the_shared_server_never_listens_on_the_network() -> None:
    settings = _settings(_SOCKET)
    assert settings["listen_addresses"] == ""
    assert settings["unix_socket_directories"] == "/s"
    assert "host" not in hba_lines(_SOCKET)


def test_a_server_with_a_port_wants_a_password_and_lets_only_the_test_role_in() -> None:
    assert _settings(_TCP)["listen_addresses"] == "127.0.0.1,::1"
    network = [line.split() for line in hba_lines(_TCP).splitlines() if line.startswith("host")]
    assert [line[2] for line in network] == ["dataflow_test"] * 2
    assert {line[-1] for line in network} == {"scram-sha-256"}


def test_a_killed_server_leaves_no_shared_memory_outside_its_data_directory() -> None:
    assert _settings(_SOCKET)["dynamic_shared_memory_type"] == "mmap"


def test_nothing_is_synced_to_disk() -> None:
    settings = _settings(_SOCKET)
    assert {settings[name] for name in ("fsync", "full_page_writes")} == {"off"}
    # But what was committed is the system's business then, and survives a killed server.
    assert settings["synchronous_commit"] == "on"


@pytest.mark.parametrize(
    ("version", "builtin", "checksums"), [("16.4", False, False), ("17.2", True, False), ("19beta1", True, True)]
)
def test_initdb_is_told_only_what_its_version_knows(version: str, builtin: bool, checksums: bool) -> None:
    words = initdb_arguments(Programs(_BINARIES, None, version), Path("/d"))
    assert ("--locale-provider=builtin" in words) is builtin
    assert ("--no-data-checksums" in words) is checksums
    assert "--locale=C" in words


@pytest.mark.parametrize(
    ("text", "version", "number"),
    [
        ("postgres (PostgreSQL) 18.6\n", "18.6", 18),
        ("postgres (PostgreSQL) 15.8 (Debian 15.8-1)\n", "15.8", 15),
        ("postgres (PostgreSQL) 19beta1", "19beta1", 19),
        ("something else", "", 0),
    ],
)
def test_versions_are_read_as_they_are_printed(text: str, version: str, number: int) -> None:
    assert version_of(text) == version
    assert major(version) == number


def test_single_user_mode_gets_one_statement_a_line() -> None:
    lines = setup_sql(18, None).splitlines()
    assert lines[0].startswith("CREATE ROLE dataflow_test LOGIN CREATEDB PASSWORD")
    assert "SUPERUSER" not in lines[0]
    assert all("STRATEGY FILE_COPY" in line for line in lines[1:])
    assert "STRATEGY" not in setup_sql(14, None)
