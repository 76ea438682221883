"""Real servers in caches of their own; at the end of each test nothing of it may be left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from tests.processes import KEEPER, processes_of, servers_of, wait_gone
from tests.servers import BINARIES
from tests.waiting import LIMIT_S

from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database


class Cache:
    """A cache directory and the processes that belong to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def options(self, idle_s: float = 60.0, binaries: Path | None = BINARIES) -> EmbeddedOptions:
        return EmbeddedOptions(cache_dir=self.path, binaries=binaries, idle_s=idle_s, start_timeout_s=LIMIT_S)

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.path)

    def keepers(self) -> list[psutil.Process]:
        return processes_of(self.path, KEEPER)

    def servers(self) -> list[psutil.Process]:
        """The postgres processes, without the children that they fork."""
        return servers_of(self.path)

    def only_server(self) -> psutil.Process:
        (server,) = self.servers()
        return server

    def only_directory(self) -> Path:
        (directory,) = (self.path / "servers").iterdir()
        return directory

    def wait_gone(self) -> None:
        wait_gone(self.path)

    def client(
        self, body: str, *, before: str = "", cwd: Path | None = None, **options: object
    ) -> subprocess.Popen[str]:
        """Another process that runs `before`, leases a database as `lease`, and then runs `body`."""
        arguments = {"cache_dir": str(self.path), "idle_s": 60.0, **options}
        program = (
            "import json, os, signal, sys, time; from pathlib import Path\n"
            "from dataflow.testing.server.embedded import EmbeddedOptions, lease_database\n"
            f"given = json.loads({json.dumps(arguments)!r}); given['cache_dir'] = Path(given['cache_dir'])\n"
            f"{before}\n"
            "lease = lease_database(EmbeddedOptions(**given), what='a client')\n"
            f"{body}\n"
        )
        return subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )

    @staticmethod
    def query(dsn: Dsn, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(dsn.url(), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    @staticmethod
    def databases(dsn: Dsn) -> set[object]:
        return {name for (name,) in Cache.query(dsn, "SELECT datname FROM pg_database")}

    def stop_all(self) -> None:
        """End whatever the test left running, by its process id."""
        for process in self.keepers():
            process.send_signal(signal.SIGTERM)
        self.wait_gone()


def base_directory() -> Path:
    """Memory rather than disk, where there is enough of it: the tests make thousands of files."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30:
        return memory
    return Path(tempfile.gettempdir())


def make_cache() -> Cache:
    path = Path(tempfile.mkdtemp(prefix="df-", dir=base_directory()))
    path.chmod(0o755)
    return Cache(path)


@pytest.fixture(scope="session")
def pristine() -> Iterator[Path]:
    """One cluster made by `initdb`, for all caches of the session."""
    cache = make_cache()
    try:
        lease_database(cache.options(idle_s=0), what="tests").close()
        cache.wait_gone()
        yield cache.path / "pristine"
    finally:
        cache.stop_all()
        shutil.rmtree(cache.path)


@pytest.fixture
def empty_cache() -> Iterator[Cache]:
    """A cache in which nothing was ever made."""
    cache = make_cache()
    try:
        yield cache
    finally:
        cache.stop_all()
        shutil.rmtree(cache.path, ignore_errors=True)
    assert not cache.path.exists()


@pytest.fixture
def cache(empty_cache: Cache, pristine: Path) -> Cache:
    """A cache in which no server was started yet, but a pristine cluster is ready."""
    (empty_cache.path / "pristine").symlink_to(pristine)
    return empty_cache


@pytest.fixture
def no_leftovers_in_temp() -> Iterator[None]:
    """Socket directories outside the cache are removed with the server."""
    temp = Path(tempfile.gettempdir())
    before = set(temp.glob("dataflow-tdd-*"))
    yield
    assert set(temp.glob("dataflow-tdd-*")) == before
