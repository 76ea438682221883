"""Servers die, stop and come back in the middle of a run."""

from __future__ import annotations

import asyncio
import logging
import signal

import psutil
import pytest
from tests.faults.test_connections import HANGS_S, works
from tests.processes import KEEPER, POSTGRES, processes_of, servers_of
from tests.waiting import until, wait_until

from dataflow.testing.errors import ServerUnreachable
from dataflow.testing.events import ServerRestarted

pytestmark = pytest.mark.asyncio


def restarts(tdd) -> list[str]:
    return [event.reason for event in tdd.events if isinstance(event, ServerRestarted)]


def kill_postgres(cache) -> None:
    """Kill the server, and wait for the end of all that belongs to it: they need a moment to notice."""
    (server,) = servers_of(cache)
    old = [server, *server.children()]
    server.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(_runs(process) for process in old), "the killed server's processes end")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def prepared(make, **settings):
    tdd = make(**settings)
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    return tdd


async def test_a_killed_embedded_server_comes_back_between_two_tests(make, own_cache):
    tdd = await prepared(make, cache_dir=own_cache)
    for number in (1, 2):
        async with tdd.test_context("before") as context:
            await context.connection.execute("INSERT INTO item VALUES (1)")
        kill_postgres(own_cache)
        await works(tdd)
        assert len(restarts(tdd)) == number
    assert "went away during the run and came back" in restarts(tdd)[0]


async def test_a_killed_embedded_server_comes_back_in_mid_test(make, own_cache):
    tdd = await prepared(make, cache_dir=own_cache)
    async with tdd.test_context("hit") as context:
        await context.connection.execute("INSERT INTO item VALUES (1)")
        kill_postgres(own_cache)
    await works(tdd)
    assert len(restarts(tdd)) == 1


async def test_a_killed_keeper_stops_the_run_with_the_reason(make, own_cache):
    """The leased database ends with it, and the tables that the run made; every test says so at once."""
    tdd = await prepared(make, cache_dir=own_cache)
    (keeper,) = processes_of(own_cache, KEEPER)
    keeper.send_signal(signal.SIGKILL)
    wait_until(lambda: not processes_of(own_cache, POSTGRES), "postgres goes with its keeper")
    async with asyncio.timeout(HANGS_S):
        for _ in range(50):
            with pytest.raises(ServerUnreachable, match=r"embedded .* went away in the middle of the run"):
                await tdd.begin_test()
    await tdd.close()
    async with tdd.test_context("a new run") as context:
        assert await context.connection.fetchval("SELECT to_regclass('item')") is None


async def test_an_external_server_that_is_started_again_between_two_tests(make, tcp_server):
    tdd = await prepared(make, database_url=tcp_server.dsn.url())
    async with tdd.test_context("before") as context:
        await context.connection.execute("INSERT INTO item VALUES (1)")
    tcp_server.stop()
    tcp_server.start()
    await works(tdd)
    assert len(restarts(tdd)) == 1


async def test_a_run_waits_for_an_external_server_that_is_being_started(make, tcp_server, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG, logger="dataflow.testing")
    monkeypatch.setattr("dataflow.testing.isolation.chosen.RESTART_PATIENCE_S", HANGS_S)
    tdd = await prepared(make, database_url=tcp_server.dsn.url())
    tcp_server.stop()
    begun = asyncio.create_task(tdd.begin_test("waits"))
    await until(lambda: "trying again to connect" in caplog.text, "it found nobody there")
    await asyncio.to_thread(tcp_server.start)
    async with asyncio.timeout(HANGS_S):
        await tdd.end_test(await begun)
    await works(tdd)
    assert len(restarts(tdd)) == 1
    assert "refused" in restarts(tdd)[0] or "failed" in restarts(tdd)[0]


async def test_an_external_server_that_stays_away_is_waited_for_only_once(make, tcp_server, monkeypatch):
    """A thousand tests must not wait a thousand times."""
    tdd = await prepared(make, database_url=tcp_server.dsn.url())
    tcp_server.stop()
    monkeypatch.setattr("dataflow.testing.isolation.chosen.RESTART_PATIENCE_S", 0.3)
    with pytest.raises(ServerUnreachable, match=r"no connection to postgresql://dataflow_test:\*\*\*@localhost"):
        await tdd.begin_test()
    monkeypatch.setattr("dataflow.testing.isolation.chosen.RESTART_PATIENCE_S", 1000)
    async with asyncio.timeout(HANGS_S):
        for _ in range(20):
            with pytest.raises(ServerUnreachable):
                await tdd.begin_test()
    tcp_server.start()
    await works(tdd)
    assert len(restarts(tdd)) == 1
