"""The runtimes of the isolation tests, and servers that may be broken."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.integration.isolation.conftest import Watched, ask, make, make_by_hand, tdd  # noqa: F401

from dataflow.testing.server.embedded import EmbeddedOptions, server_dsn, start_server, stop_server
from dataflow.testing.server.ports import free_port

LIMIT_S = 20.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT_S:.0f} s in vain: {what}"
        time.sleep(0.01)


class TcpServer:
    """A server of its own on a free port, as somebody else might run it."""

    def __init__(self, cache: Path, port: int) -> None:
        self.options = EmbeddedOptions(cache_dir=cache)
        self.port = port
        self.start()

    def start(self) -> None:
        start_server(self.options, self.port)
        dsn, admin = server_dsn(self.options, self.port), server_dsn(self.options, self.port, admin=True)
        assert dsn is not None
        assert admin is not None
        self.dsn, self.admin = dsn, admin

    def stop(self) -> None:
        stop_server(self.options, self.port, force=True)

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        return ask(self.admin, statement)


@pytest.fixture
def tcp_server(test_cache: Path) -> Iterator[TcpServer]:
    server = TcpServer(test_cache, free_port())
    yield server
    server.stop()


@pytest.fixture
def own_cache() -> Iterator[Path]:
    """A cache whose server a test may kill."""
    with tempfile.TemporaryDirectory(prefix="f-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        for process in processes(path, "server.keeper"):
            process.send_signal(signal.SIGTERM)
        wait_until(lambda: not processes(path), f"the processes of {path} end")


def processes(cache: Path, word: str = "") -> list[psutil.Process]:
    """Keepers and servers of a cache: both have its path in their command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if str(cache) in command and word in command and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found
