"""When a server stops, and that a run which comes in that very moment is served all the same."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.waiting import wait_until

from dataflow.testing.errors import ServerInUse
from dataflow.testing.server.embedded import lease_database, server_status, start_server, stop_server

if TYPE_CHECKING:
    from tests.integration.server.conftest import Cache


def test_an_unused_server_stops_after_its_idle_time_and_not_before(cache: Cache) -> None:
    lease = lease_database(cache.options(idle_s=1.0), what="a test")
    time.sleep(1.2)
    assert lease.alive  # used is not idle
    closing = time.monotonic()
    lease.close()
    wait_until(lambda: server_status(cache.options()) is None, "the server stops")
    assert time.monotonic() - closing > 0.9
    cache.wait_gone()


def test_a_run_that_comes_while_the_server_stops_gets_the_next_one(cache: Cache) -> None:
    """With no idle time every close begins a stop; the next lease races it each time."""
    for turn in range(12):
        lease = lease_database(cache.options(idle_s=0), what=f"turn {turn}")
        cache.query(lease.dsn, "CREATE TABLE t (id int)")
        lease.close()
        time.sleep((turn % 4) * 0.05)
    cache.wait_gone()


def test_runs_that_come_while_the_server_is_stopped_by_hand_are_served(cache: Cache) -> None:
    body = (
        "for _ in range(10):\n"
        "    from dataflow.testing.server.embedded import stop_server\n"
        "    lease.close(); stop_server(EmbeddedOptions(**given), force=True)\n"
        "    lease = lease_database(EmbeddedOptions(**given), what='again')\n"
        "print('done')"
    )
    clients = [cache.client(body) for _ in range(3)]
    for client in clients:
        output, _ = client.communicate(timeout=60)
        assert output == "done\n"


def test_a_used_server_is_not_stopped_and_the_users_are_named(cache: Cache) -> None:
    lease = lease_database(cache.options(), what="pytest -n 4")
    try:
        with pytest.raises(ServerInUse, match=r"\(pytest -n 4\)") as raised:
            stop_server(cache.options())
        assert raised.value.option == "--force"
        assert lease.alive
        assert stop_server(cache.options(), force=True)
        assert not cache.servers()  # stop_server returns when all is over
        cache.wait_gone()
        assert not lease.alive
    finally:
        lease.close()
    assert not stop_server(cache.options())


def test_a_server_started_by_hand_stays_until_it_is_stopped_by_hand(cache: Cache) -> None:
    status = start_server(cache.options(idle_s=0))
    assert status.pinned
    lease_database(cache.options(idle_s=0), what="a test").close()
    time.sleep(0.5)
    status = server_status(cache.options())
    assert status is not None
    assert status.stops_at is None
    assert stop_server(cache.options())


def test_a_server_that_runs_already_can_be_made_to_stay(cache: Cache) -> None:
    lease = lease_database(cache.options(idle_s=0), what="a test")
    assert start_server(cache.options()).pinned
    lease.close()
    time.sleep(0.5)
    assert server_status(cache.options()) is not None
