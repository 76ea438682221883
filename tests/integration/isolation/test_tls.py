"""A server that is entered through TLS: what works there, and what does not, which is said."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from tests.tls import through_tls

from dataflow.testing.errors import ServerUnreachable
from dataflow.testing.events import SessionsNotKept


@pytest.fixture
def entered(make_by_hand):
    server = make_by_hand()
    with through_tls(server.server().dsn) as dsn:
        yield make_by_hand(database_url=dsn.url(), allow_database=dsn.database)


def test_each_loop_has_a_connection_of_its_own_and_that_is_said_once(entered):
    pids = set()

    async def run():
        async with entered.test_context("through TLS") as context:
            async with context.connection.transaction():
                await context.connection.execute("CREATE TABLE mine (id int)")
            with pytest.raises(asyncpg.DuplicateTableError):
                await context.pool.execute("CREATE TABLE mine (id int)")
            assert (
                await context.connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                is False
            )
            pids.add(context.connection.get_server_pid())

    for _ in range(3):
        asyncio.run(run())
    assert len(pids) == 3
    told = [event for event in entered.events if isinstance(event, SessionsNotKept)]
    assert told == [SessionsNotKept("the server is entered through TLS")]
    released = entered.events[-1]
    assert (released.problem, released.isolated) == (None, True)


def test_with_psycopg_it_is_told_what_to_do(entered):
    with pytest.raises(ServerUnreachable, match=r"entered through TLS only(.|\n)*isolation=\"database\""):
        entered.psycopg_tests.begin("through TLS")
