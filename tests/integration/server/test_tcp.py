"""A server of its own on a TCP port, for programs that expect the guide's address."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import asyncpg
import pytest
from tests.ports import unused_port
from tests.waiting import wait_until

from dataflow.testing.errors import ServerInUse, ServerStartFailed
from dataflow.testing.server.embedded import lease_database, server_dsn, start_server, stop_server
from dataflow.testing.server.external import GUIDE_DSN

if TYPE_CHECKING:
    from tests.integration.server.conftest import Cache

GUIDE_URL = "postgresql://dataflow_test:dataflow_test_password@localhost:5433/dataflow_test"


def test_the_constant_is_the_guides_address() -> None:
    assert GUIDE_DSN.url() == GUIDE_URL


@pytest.mark.asyncio
async def test_the_guides_address_opens_it_and_nothing_else_does(cache: Cache) -> None:
    """On a port of its own: at 5433 this machine's user may have a server, and other runs would use ours."""
    port = unused_port()
    url = GUIDE_URL.replace("5433", str(port))
    status = start_server(cache.options(), port)
    assert (status.tcp_port, status.pinned) == (port, True)
    dsn = server_dsn(cache.options(), port)
    assert dsn is not None
    assert dsn.url() == url
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT current_user || '@' || current_database()") == (
            "dataflow_test@dataflow_test"
        )
        await connection.execute("CREATE TABLE t (id int)")
        with pytest.raises(ServerInUse, match="database dataflow_test"):
            stop_server(cache.options(), port)
    finally:
        await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url.replace("dataflow_test_password", "wrong"))
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(url.replace("dataflow_test:", "postgres:"))
    # What was created stays, over a restart too.
    wait_until(lambda: _stopped(cache, port), "the closed connection is gone")
    start_server(cache.options(), port)
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM t") == 0
    finally:
        await connection.close()


def _stopped(cache: Cache, port: int) -> bool:
    try:
        return stop_server(cache.options(), port)
    except ServerInUse:
        return False


def test_it_runs_beside_the_shared_server(cache: Cache) -> None:
    port = unused_port()
    lease = lease_database(cache.options(), what="a test")
    try:
        start_server(cache.options(), port)
        assert len(cache.servers()) == 2
        assert stop_server(cache.options(), port)
        assert lease.alive
    finally:
        lease.close()


def test_a_port_in_use_is_an_error_that_names_what_answers_there(cache: Cache) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ServerStartFailed, match=f"port {port} of 127.0.0.1 is in use") as raised:
            start_server(cache.options(), port)
    assert "a program that is not PostgreSQL" in raised.value.what
    assert raised.value.option == "--port"
    cache.wait_gone()


def test_a_port_used_by_postgresql_is_named_as_such(cache: Cache, empty_cache: Cache) -> None:
    port = unused_port()
    first = start_server(cache.options(), port)
    assert start_server(cache.options(), port).pid == first.pid  # the same server: nothing to do
    other = cache.path / "other"
    other.mkdir(mode=0o755)
    options = cache.options()
    elsewhere = type(options)(cache_dir=other)
    with pytest.raises(ServerStartFailed, match="a PostgreSQL server answers there"):
        start_server(elsewhere, port)
