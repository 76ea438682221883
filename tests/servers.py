"""Servers of one's own, in caches of their own, apart from the one that tests share.

`TESTS_POSTGRES` names the directory with `initdb` and `postgres` of another PostgreSQL than that of the
environment: all servers of the tests are of that one then. `make test-servers` sets it.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import KEEPER, processes_of, wait_gone

from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database

_GIVEN = os.environ.get("TESTS_POSTGRES")
BINARIES = Path(_GIVEN) if _GIVEN else None


@contextmanager
def cache_of_its_own() -> Iterator[Path]:
    """A cache whose server may be killed; nothing runs there afterwards."""
    with tempfile.TemporaryDirectory(prefix="f-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        for process in processes_of(path, KEEPER):
            process.send_signal(signal.SIGTERM)
        wait_gone(path)


@contextmanager
def server_of_its_own() -> Iterator[Dsn]:
    """A server as its superuser, to whose log nobody else writes."""
    with cache_of_its_own() as cache:
        lease = lease_database(EmbeddedOptions(cache_dir=cache, binaries=BINARIES), what="tests")
        try:
            yield lease.admin_dsn
        finally:
            lease.close()
