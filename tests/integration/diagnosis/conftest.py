"""One real server for all of these tests, in a cache of its own; at the end nothing of it may be left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.ports import closed_port, unused_port
from tests.processes import wait_gone

from dataflow.testing.diagnosis.environment import _KNOWN
from dataflow.testing.dsn import Dsn
from dataflow.testing.runtime import Runtime, install
from dataflow.testing.server.embedded import (
    EmbeddedOptions,
    running_servers,
    server_dsn,
    start_server,
    stop_server,
)

Doctor = Callable[..., "subprocess.CompletedProcess[str]"]
UseUrl = Callable[[str], None]


@pytest.fixture(scope="session")
def options() -> Iterator[EmbeddedOptions]:
    """The options of servers that only these tests use."""
    path = Path(tempfile.mkdtemp(prefix="df-"))
    path.chmod(0o755)
    options = EmbeddedOptions(cache_dir=path, idle_s=60.0)
    yield options
    for status in running_servers(options):
        stop_server(options, status.tcp_port, force=True)
    wait_gone(path)
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def by_password(options: EmbeddedOptions) -> Dsn:
    """The address of a server that is entered with a password."""
    port = unused_port()
    start_server(options, port)
    dsn = server_dsn(options, port)
    assert dsn is not None
    return dsn


@pytest.fixture
def nobody_there(by_password: Dsn) -> Iterator[Dsn]:
    """An address at which nobody listens."""
    with closed_port() as port:
        yield replace(by_password, host="127.0.0.1", port=port)


@pytest.fixture(autouse=True)
def runtime(options: EmbeddedOptions, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A runtime as in a process of its own, with no settings but those of the embedded server."""
    for name in set(_KNOWN).intersection(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATAFLOW_TDD_CACHE_DIR", str(options.cache_dir))
    monkeypatch.setenv("DATAFLOW_TDD_SERVER", "embedded")
    mine = Runtime()
    before = install(mine)
    yield mine
    mine.release()
    install(before)


@pytest.fixture
def use_url(monkeypatch: pytest.MonkeyPatch) -> UseUrl:
    """Name a server, as somebody does who does not want the embedded one."""

    def use(url: str) -> None:
        monkeypatch.delenv("DATAFLOW_TDD_SERVER", raising=False)
        monkeypatch.setenv("TEST_DATABASE_URL", url)

    return use


@pytest.fixture
def embedded_is_down(options: EmbeddedOptions) -> EmbeddedOptions:
    """The options of the shared server, which does not run."""
    stop_server(options, force=True)
    return options


@pytest.fixture
def doctor(options: EmbeddedOptions) -> Doctor:
    """Runs the command in a process of its own, with these variables and no others of ours."""

    def run(*arguments: str, python: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name not in _KNOWN}
        server = {} if "TEST_DATABASE_URL" in variables else {"DATAFLOW_TDD_SERVER": "embedded"}
        environment = kept | {"DATAFLOW_TDD_CACHE_DIR": str(options.cache_dir)} | server | variables
        command = [sys.executable, *python, "-m", "dataflow.testing.cli", "doctor", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    return run
