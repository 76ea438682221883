"""Which server a run uses, and what it says when it can use none. A password is never part of it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.isolation.conftest import ask
from tests.ports import closed_port, unused_port

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import (
    MissingDatabase,
    NotATestDatabase,
    ServerError,
    ServerUnreachable,
    TDDError,
    WrongPassword,
)
from dataflow.testing.events import ServerChosen
from dataflow.testing.server.embedded import EmbeddedOptions, server_dsn, start_server, stop_server

pytestmark = pytest.mark.asyncio

SECRET = "s3cret'p@ss/w:ord"


@pytest.fixture(scope="module")
def tcp(test_cache: Path) -> Iterator[tuple[Dsn, Dsn]]:
    """A server over TCP with scram, as somebody else might run it: its address, and that of its superuser."""
    options, port = EmbeddedOptions(cache_dir=test_cache), unused_port()
    start_server(options, port)
    dsn, admin = server_dsn(options, port), server_dsn(options, port, admin=True)
    assert dsn is not None
    assert admin is not None
    ask(admin, "ALTER ROLE dataflow_test PASSWORD 's3cret''p@ss/w:ord'")
    yield replace(dsn, password=SECRET), admin
    stop_server(options, port, force=True)


def told_without_secret(error: BaseException, caplog: pytest.LogCaptureFixture, *secrets: str) -> str:
    """The message; neither it, nor its traceback, nor the log has a secret in it."""
    everything = "".join(traceback.format_exception(error)) + repr(error) + caplog.text
    for secret in secrets:
        assert secret not in everything
    return str(error)


async def refused(make, caplog, kind: type[ServerError], **settings) -> str:
    caplog.set_level(logging.DEBUG, logger="dataflow.testing")
    tdd = make(**settings)
    with pytest.raises(kind) as told:
        await tdd.begin_test()
    assert tdd.manager.server is None
    assert tdd.events == []
    return told_without_secret(told.value, caplog, SECRET, "s3cret", "dataflow_test_password")


async def test_a_given_url_is_used_and_shown_without_its_password(make, tcp, caplog):
    caplog.set_level(logging.DEBUG, logger="dataflow.testing")
    dsn = tcp[0]
    tdd = make(database_url=dsn.url())
    async with tdd.test_context("external") as context:
        assert await context.connection.fetchval("SHOW port") == str(dsn.port)
    (chosen,) = [event for event in tdd.events if isinstance(event, ServerChosen)]
    shown = f"postgresql://dataflow_test:***@localhost:{dsn.port}/dataflow_test"
    assert chosen.description == f"external, {shown} (--tdd-database-url)"
    for text in (caplog.text, repr(tdd.manager.server), repr(tdd.settings), repr(tdd.sources), str(tdd.settings)):
        assert SECRET not in text
        assert "s3cret" not in text


async def test_a_url_of_the_caller_wins(make, tcp):
    tdd = make()
    await tdd.manager.initialize(tcp[0].url())
    assert tdd.manager.server.description.endswith("(connection_string)")
    assert tdd.ask("SHOW port") == [(str(tcp[0].port),)]


async def test_wrong_password(make, tcp, caplog):
    url = f"postgresql://dataflow_test:s3cret@localhost:{tcp[0].port}/dataflow_test"
    text = await refused(make, caplog, WrongPassword, database_url=url)
    assert f"localhost:{tcp[0].port} refused user 'dataflow_test': password authentication failed" in text
    assert f"postgresql://dataflow_test:***@localhost:{tcp[0].port}/dataflow_test" in text
    assert "TEST_DATABASE_URL" in text


async def test_missing_database(make, tcp, caplog):
    url = replace(tcp[0], database="other_test").url()
    text = await refused(make, caplog, MissingDatabase, database_url=url)
    assert "has no database 'other_test'" in text
    assert 'CREATE DATABASE "other_test" OWNER "dataflow_test";' in text


async def test_closed_port(make, caplog):
    with closed_port() as port:
        url = f"postgresql://me:s3cret@localhost:{port}/app_test"
        text = await refused(make, caplog, ServerUnreachable, database_url=url)
    assert f"no connection to postgresql://me:***@localhost:{port}/app_test" in text
    assert f"pg_isready -h localhost -p {port}" in text


async def test_something_else_than_postgresql_answers(make, caplog):
    async def serve(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        text = await refused(
            make, caplog, ServerUnreachable, database_url=f"postgresql://me:s3cret@127.0.0.1:{port}/app_test"
        )
    assert "no connection to postgresql://me:***@127.0.0.1" in text


async def silent_server():
    """It takes every connection, and says nothing on it."""

    async def serve(reader, writer):
        await reader.read()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_something_that_never_answers_is_waited_for_in_bounded_time(make, caplog):
    server = await silent_server()
    port = server.sockets[0].getsockname()[1]
    url = f"postgresql://me:s3cret@127.0.0.1:{port}/app_test"
    async with server, asyncio.timeout(20):
        text = await refused(make, caplog, ServerUnreachable, database_url=url, pool_timeout=0.3)
    assert "within 0.3 s" in text


async def test_the_guard_refuses_before_anybody_connects(make, tcp, caplog):
    """Such a database may be a real one. Its name lets it in only if it is allowed."""
    ask(tcp[1], "CREATE DATABASE shop OWNER dataflow_test")
    sessions = "SELECT sessions::int, numbackends FROM pg_stat_database WHERE datname = 'shop'"
    before = ask(tcp[1], sessions)
    url = replace(tcp[0], database="shop").url()
    text = await refused(make, caplog, NotATestDatabase, database_url=url)
    assert "'shop'" in text
    assert "DATAFLOW_TDD_ALLOW_DATABASE=shop, or --tdd-allow-database" in text
    ask(tcp[1], "SELECT pg_stat_force_next_flush()")
    assert ask(tcp[1], sessions) == before
    tdd = make(database_url=url, allow_database="other,shop")
    async with tdd.test_context() as context:
        assert await context.connection.fetchval("SELECT current_database()") == "shop"


async def test_when_nothing_can_be_used_everything_tried_is_listed(
    make, tmp_path, caplog, nobody_at_the_default_address
):
    text = await refused(make, caplog, ServerUnreachable, server="auto", postgres_bin=tmp_path)
    assert "no PostgreSQL server can be used; tried:" in text
    assert f"- {nobody_at_the_default_address.where} (the default address): connection refused" in text
    assert "- embedded: " in text
    assert str(tmp_path) in text


async def test_a_server_that_does_not_start_is_listed_with_the_rest(
    make, tmp_path, caplog, nobody_at_the_default_address
):
    for name in ("initdb", "postgres"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.6'; echo 'no space left' >&2; exit 1\n")
        program.chmod(0o755)
    text = await refused(make, caplog, ServerError, server="auto", postgres_bin=tmp_path)
    assert f"- {nobody_at_the_default_address.where} (the default address): " in text


async def test_the_log_tells_servers_connections_tests_and_retries(tdd, caplog):
    caplog.set_level(logging.DEBUG, logger="dataflow.testing")
    async with tdd.test_context("logged, password=s3cret") as context:
        pid = await context.connection.fetchval("SELECT pg_backend_pid()")
    tdd.ask("SELECT pg_terminate_backend(%s, 5000)", pid)
    async with tdd.test_context("again"):
        pass
    other = await tdd.begin_test("left open")
    await other.connection.close()
    await tdd.end_test(other)
    await tdd.close()
    text = caplog.text
    for words in (
        "begun: again, in ",
        "ended: again, rolled back",
        "a pooled connection had ended",
        "connected to postgresql://",
        "closed a connection",
        "gave back: embedded PostgreSQL",
    ):
        assert words in text
    assert "s3cret" not in text


async def test_the_environment_of_drivers_does_not_reach_the_embedded_server(make, monkeypatch):
    for name, value in (
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGSSLNEGOTIATION", "direct"),
        ("PGSSLMODE", "require"),
    ):
        monkeypatch.setenv(name, value)
    async with make(server="embedded").test_context() as context:
        assert await context.connection.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
async def test_whatever_goes_wrong_while_connecting_shows_no_password(make, caplog, host):
    url = f"postgresql://me:s3cret@{host}:5432/app_test"
    await refused(make, caplog, ServerUnreachable, database_url=url)


async def test_a_given_address_is_not_shown_in_a_traceback(make):
    for url in ("postgresql://me:s3cret@host:port/app_test", "postgresql://me:s3cret@127.0.0.1:1/app_test"):
        with pytest.raises(TDDError) as told:
            await make().manager.initialize(url)
        frames = [frame for frame, _ in traceback.walk_tb(told.value.__traceback__)][1:]
        shown = repr([frame.f_locals for frame in frames]) + "".join(traceback.format_exception(told.value))
        assert "s3cret" not in shown.replace(url, "")
        assert url not in repr([frame.f_locals for frame in frames])


async def test_a_choice_that_failed_slowly_is_not_made_again_for_each_test(make):
    async with await silent_server() as server:
        port = server.sockets[0].getsockname()[1]
        tdd = make(database_url=f"postgresql://me:s3cret@127.0.0.1:{port}/app_test", pool_timeout=1.5)
        messages = []
        for _ in range(20):
            async with asyncio.timeout(25):
                with pytest.raises(ServerUnreachable) as told:
                    await tdd.begin_test()
            messages.append(str(told.value))
        assert len(set(messages)) == 1
