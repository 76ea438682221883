"""The world breaks: what is killed or destroyed leaves nothing running, and the next lease works."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.waiting import wait_until

from dataflow.testing.errors import ServerStartFailed
from dataflow.testing.server.embedded import lease_database, start_server, stop_server
from dataflow.testing.server.keeper import RESTARTS

if TYPE_CHECKING:
    from tests.integration.server.conftest import Cache


def _works(cache: Cache) -> bool:
    """Whether a new lease is an empty database that can be written to. Starts the server if need be."""
    lease = lease_database(cache.options(), what="next")
    try:
        cache.query(lease.dsn, "CREATE TABLE t (id int)")
        return lease.started
    finally:
        lease.close()


def test_a_killed_run_loses_its_database_and_then_the_server_stops(cache: Cache) -> None:
    watcher = lease_database(cache.options(), what="watcher")
    client = cache.client("print(lease.dsn.database, flush=True); sys.stdin.read()", idle_s=0)
    assert client.stdout is not None
    database = client.stdout.readline().strip()
    assert database in cache.databases(watcher.dsn)
    client.kill()
    client.communicate()
    wait_until(lambda: database not in cache.databases(watcher.dsn), "the database is dropped")
    watcher.close()
    cache.wait_gone()
    directory = cache.only_directory()
    assert not list((directory / "socket").iterdir())
    assert not (directory / "control" / "keeper.sock").exists()
    assert not (directory / "control" / "keeper.json").exists()
    assert not (directory / "data" / "postmaster.pid").exists()


def test_a_killed_keeper_takes_postgres_with_it(cache: Cache) -> None:
    for at_once in (True, False):  # at once: the next keeper has to wait for the old server's end
        lease = lease_database(cache.options(), what="first")
        (keeper,) = cache.keepers()
        keeper.send_signal(signal.SIGKILL)
        wait_until(lambda: not lease.alive, "the lease notices")  # noqa: B023
        lease.close()
        if not at_once:
            wait_until(lambda: not cache.servers(), "postgres ends by itself")
        assert _works(cache) is True
    assert keeper not in cache.keepers()
    assert len(cache.servers()) == 1
    # Nobody was there to drop the killed keeper's leases: the next one does it.
    watcher = lease_database(cache.options(), what="watcher")
    wait_until(lambda: lease.dsn.database not in cache.databases(watcher.dsn), "the old one is dropped")
    watcher.close()


def test_a_killed_postgres_is_started_again_for_those_who_use_it(cache: Cache) -> None:
    """At the same address and with all that was committed, down to the last moment."""
    lease = lease_database(cache.options(), what="first")
    cache.query(lease.dsn, "CREATE TABLE t (id int)")
    (keeper,) = cache.keepers()
    for number in range(1, RESTARTS + 1):
        cache.query(lease.dsn, "INSERT INTO t SELECT generate_series(1, 100)")
        old = cache.only_server()
        old.send_signal(signal.SIGKILL)
        wait_until(lambda: lease.alive and lease.restarts == number, "the lease hears of it")  # noqa: B023
        assert cache.query(lease.dsn, "SELECT count(*) FROM t") == [(100 * number,)]
        assert cache.only_server().pid != old.pid
    assert cache.keepers() == [keeper]
    other = lease_database(cache.options(), what="second")
    assert not other.started
    assert cache.query(other.dsn, "SELECT 1") == [(1,)]
    other.close()
    wait_until(lambda: other.dsn.database not in cache.databases(lease.dsn), "housekeeping goes on")
    # Not for ever: a server that does not stay up is given up.
    cache.only_server().send_signal(signal.SIGKILL)
    wait_until(lambda: not lease.alive, "the lease ends")
    lease.close()
    wait_until(lambda: keeper not in cache.keepers(), "the keeper ends")
    assert _works(cache) is True


def test_a_killed_postgres_that_cannot_start_again_ends_its_keeper_and_the_leases(cache: Cache) -> None:
    lease = lease_database(cache.options(), what="first")
    (keeper,) = cache.keepers()
    (cache.only_directory() / "data" / "global" / "pg_control").write_bytes(b"not what it was")
    cache.only_server().send_signal(signal.SIGKILL)
    wait_until(lambda: not lease.alive, "the lease notices")
    lease.close()
    assert _works(cache) is True
    assert keeper not in cache.keepers()
    log = (cache.only_directory() / "control" / "keeper.log").read_text()
    assert "does not start again" in log
    assert "stops: postgres ended" in log


def test_a_killed_postgres_that_nobody_uses_is_left_alone(cache: Cache) -> None:
    lease_database(cache.options(), what="first").close()
    cache.only_server().send_signal(signal.SIGKILL)
    cache.wait_gone()
    assert _works(cache) is True


def test_everything_killed_at_once(cache: Cache) -> None:
    lease = lease_database(cache.options(), what="first")
    for process in [*cache.keepers(), *cache.servers()]:
        process.send_signal(signal.SIGKILL)
    lease.close()
    assert _works(cache) is True


def test_the_number_of_a_killed_server_may_be_another_programs(cache: Cache) -> None:
    """After a restart of a container numbers come again; postgres alone would refuse to start."""
    lease = lease_database(cache.options(), what="first")
    pid_file = cache.only_directory() / "data" / "postmaster.pid"
    number, *rest = pid_file.read_text().splitlines()
    owner = cache.only_server().uids().real
    for process in [*cache.keepers(), *cache.servers()]:
        process.send_signal(signal.SIGKILL)
    lease.close()
    cache.wait_gone()
    with subprocess.Popen(["sleep", "60"], user=owner if os.geteuid() == 0 else None) as other:
        try:
            pid_file.write_text("\n".join([str(other.pid), *rest, ""]))
            assert number != str(other.pid)
            assert _works(cache) is True
            assert other.poll() is None
            log = (cache.only_directory() / "control" / "keeper.log").read_text()
            assert "as it is" not in log  # the data was not given up either
        finally:
            other.kill()


def test_a_killed_starter_does_not_hold_up_the_next(cache: Cache) -> None:
    client = cache.client("print('leased', flush=True); time.sleep(60)")
    wait_until(lambda: cache.keepers(), "the keeper is on its way")
    client.kill()
    client.communicate()
    lease_database(cache.options(), what="next").close()
    # A second keeper, started in vain, ends by itself.
    wait_until(lambda: len(cache.keepers()) == 1, "one keeper is left")


@pytest.mark.parametrize("lost", ["global/pg_control", "pg_wal", "global"])
def test_a_damaged_data_directory_is_replaced(cache: Cache, lost: str) -> None:
    lease_database(cache.options(idle_s=0), what="first").close()
    cache.wait_gone()
    path = cache.only_directory() / "data" / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.write_bytes(b"\0" * 100)
    assert _works(cache) is True


def test_a_damaged_pristine_cluster_is_made_anew(cache: Cache, pristine: Path) -> None:
    (cache.path / "pristine").unlink()
    shutil.copytree(pristine, cache.path / "pristine")
    (archive,) = (cache.path / "pristine").glob("*/data.tar")
    os.truncate(archive, archive.stat().st_size // 2)
    assert _works(cache) is True
    assert archive.stat().st_size == next(pristine.glob("*/data.tar")).stat().st_size


def test_data_of_a_machine_that_went_down_is_not_trusted(cache: Cache) -> None:
    """Nothing is synced to disk, so after a power cut even files that look right may not be."""
    lease = lease_database(cache.options(), what="first")
    cache.query(lease.dsn, "CREATE DATABASE stays")
    for process in [*cache.keepers(), *cache.servers()]:
        process.send_signal(signal.SIGKILL)
    lease.close()
    cache.wait_gone()
    record = cache.only_directory() / "control" / "databases.json"
    text = record.read_text()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert boot in text
    record.write_text(text.replace(boot, "another-boot"))
    lease = lease_database(cache.options(), what="second")
    try:
        assert "stays" not in cache.databases(lease.dsn)
    finally:
        lease.close()


def test_a_cache_that_is_deleted_under_a_running_server(cache: Cache, pristine: Path) -> None:
    lease = lease_database(cache.options(), what="first")
    old = [*cache.keepers(), *cache.servers()]
    shutil.rmtree(cache.path / "servers")
    second = lease_database(cache.options(), what="second")
    try:
        wait_until(lambda: not any(p.is_running() for p in old), "the old server ends by itself")
        assert not lease.alive
        assert second.alive  # the old keeper's end must not touch the new one's files
        assert _works(cache) is False
    finally:
        lease.close()
        second.close()


def test_programs_that_do_not_run_are_reported_with_their_output(cache: Cache, tmp_path: Path) -> None:
    for name, text in (("postgres", "echo 'postgres (PostgreSQL) 18.6'"), ("initdb", "echo out of luck; exit 3")):
        (cache.path / "bin").mkdir(exist_ok=True)
        program = cache.path / "bin" / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    (cache.path / "pristine").unlink()
    with pytest.raises(ServerStartFailed) as raised:
        lease_database(cache.options(binaries=cache.path / "bin"), what="fails")
    assert "bin/initdb ended with status 3" in str(raised.value)
    assert "out of luck" in str(raised.value)
    cache.wait_gone()


def test_a_server_that_ends_while_starting_is_reported_with_the_end_of_its_log(cache: Cache) -> None:
    start_server(cache.options())
    stop_server(cache.options())
    (cache.only_directory() / "data" / "postgresql.auto.conf").write_text("shared_buffers = 'nonsense'\n")
    # Its configuration is part of the data, and so it is replaced as damaged data is.
    assert _works(cache) is True
    log = (cache.only_directory() / "control" / "keeper.log").read_text()
    assert 'invalid value for parameter "shared_buffers"' in log
