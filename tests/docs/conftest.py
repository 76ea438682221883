"""A server for the documentation alone: its commands stop servers, which other tests may be using."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow.testing.server.embedded import EmbeddedOptions, running_servers, stop_server

_OURS = ("DATAFLOW_", "TEST_DATABASE_", "PYTEST_", "CI", "CONTAINER", "GITHUB_", "GITLAB_", "JENKINS")


@pytest.fixture(scope="session")
def docs_cache() -> Iterator[Path]:
    cache = Path(tempfile.mkdtemp(prefix="df-"))
    cache.chmod(0o755)
    options = EmbeddedOptions(cache_dir=cache)
    try:
        yield cache
    finally:
        for server in running_servers(options):
            stop_server(options, server.tcp_port, force=True)
        shutil.rmtree(cache)


@pytest.fixture
def reader(docs_cache: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who follows the documentation: nothing is configured."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return environment | {"DATAFLOW_TDD_CACHE_DIR": str(docs_cache), "PATH": path, "HOME": str(tmp_path)}
