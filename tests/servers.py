"""Servers of one's own, in caches of their own, apart from the one that tests share."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database

LIMIT_S = 20.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT_S:.0f} s in vain: {what}"
        time.sleep(0.01)


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


@contextmanager
def cache_of_its_own() -> Iterator[Path]:
    """A cache whose server may be killed; nothing runs there afterwards."""
    with tempfile.TemporaryDirectory(prefix="f-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        for process in processes(path, "server.keeper"):
            process.send_signal(signal.SIGTERM)
        wait_until(lambda: not processes(path), f"the processes of {path} end")


@contextmanager
def server_of_its_own() -> Iterator[Dsn]:
    """A server as its superuser, to whose log nobody else writes."""
    with cache_of_its_own() as cache:
        lease = lease_database(EmbeddedOptions(cache_dir=cache), what="tests")
        yield lease.admin_dsn
        lease.close()
