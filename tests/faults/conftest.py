"""The runtimes of the isolation tests, and servers that may be broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.isolation.conftest import Watched, ask, make, make_by_hand, tdd  # noqa: F401
from tests.ports import unused_port
from tests.servers import cache_of_its_own

from dataflow.testing.server.embedded import EmbeddedOptions, server_dsn, start_server, stop_server


class TcpServer:
    """A server of its own on a port of its own, as somebody else might run it."""

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
    server = TcpServer(test_cache, unused_port())
    yield server
    server.stop()


@pytest.fixture
def own_cache() -> Iterator[Path]:
    """A cache whose server a test may kill."""
    with cache_of_its_own() as path:
        yield path
