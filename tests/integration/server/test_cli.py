"""The command line: words for people, one URL for programs, status 1 and no traceback on failure."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.ports import unused_port

from dataflow.testing.cli import main
from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import lease_database

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
