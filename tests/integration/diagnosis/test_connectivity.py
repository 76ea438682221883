"""Does the server answer? Real ones: right, wrong, closed, silent; started for the question and stopped again."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import quote

import pytest
from tests.integration.diagnosis.conftest import UseUrl
from tests.waiting import wait_until

from dataflow.testing.diagnosis.capabilities import check_server_capabilities
from dataflow.testing.diagnosis.connectivity import check_database_connectivity
from dataflow.testing.dsn import Dsn
from dataflow.testing.runtime import Runtime
from dataflow.testing.server.embedded import (
    EmbeddedOptions,
    lease_database,
    server_dsn,
    server_status,
    start_server,
    stop_server,
)
from dataflow.testing.server.protocol import User

PASSWORD = "p@ss/w:rd#%?'\" é"


@contextmanager
def silent_server() -> Iterator[Dsn]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Dsn("127.0.0.1", listener.getsockname()[1], "u", "p", "a_test")


def test_a_server_that_answers_tells_its_version_and_the_time(by_password: Dsn) -> None:
    found = asyncio.run(check_database_connectivity(by_password.url()))
    assert found
    assert found.server_version is not None
    assert int(found.server_version.split(".")[0]) >= 14
    assert found.duration_ms is not None
    assert found.duration_ms > 0
    assert found.server == str(by_password)
    assert found.server_version in str(found)


def test_a_wrong_password_is_told_and_not_shown(by_password: Dsn) -> None:
    wrong = replace(by_password, password=PASSWORD)
    found = asyncio.run(check_database_connectivity(wrong.url()))
    assert not found
    (check,) = found.checks
    assert "refused user 'dataflow_test'" in check.found
    assert check.cause is not None
    assert check.remedy is not None
    assert "CREATE USER" in check.remedy
    shown = str(found) + repr(found) + json.dumps(found.to_plain(), ensure_ascii=False)
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "w:rd", "p%40ss"):
        assert secret not in shown


def test_a_missing_database_is_told_with_the_sql_that_makes_it(by_password: Dsn) -> None:
    found = asyncio.run(check_database_connectivity(by_password.with_database("gone_test").url()))
    assert not found
    assert found.checks[0].remedy == 'CREATE DATABASE "gone_test" OWNER "dataflow_test";'


def test_a_closed_port_is_a_result_and_no_exception(nobody_there: Dsn) -> None:
    found = asyncio.run(check_database_connectivity(nobody_there.url()))
    assert not found
    assert found.server_version is None
    assert "not running" in (found.checks[0].cause or "")
    assert "pg_isready" in (found.checks[0].remedy or "")


def test_a_server_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAFLOW_TDD_POOL_TIMEOUT", "0.3")
    with silent_server() as dsn:
        found = asyncio.run(check_database_connectivity(dsn.url()))
    assert not found
    assert found.duration_ms is not None
    assert found.duration_ms > 250
    assert "within 0.3 s" in found.checks[0].found


def test_a_url_that_cannot_be_read_is_a_result_and_not_repeated() -> None:
    found = asyncio.run(check_database_connectivity("postgresql://u:12/s3cret@h/a_test"))
    assert not found
    assert "%40" in str(found)
    assert "s3cret" not in str(found)


def test_a_url_that_would_be_misread_is_not_tried(use_url: UseUrl) -> None:
    use_url("postgresql://u:12/s3cret_test@h/a_test")
    found = asyncio.run(check_database_connectivity())
    assert not found
    assert found.checks[0].name == "settings"
    assert "s3cret" not in str(found)


def test_the_embedded_server_is_started_for_the_question_and_stopped_again(
    embedded_is_down: EmbeddedOptions, runtime: Runtime, nobody_at_the_default_address: Dsn
) -> None:
    found = asyncio.run(check_database_connectivity())
    assert found
    assert "embedded PostgreSQL" in (found.server or "")
    assert found.attempts == (f"{nobody_at_the_default_address.where} (the default address): connection refused",)
    assert server_status(embedded_is_down) is None
    assert not runtime.started


def test_a_server_that_ran_before_runs_on(embedded_is_down: EmbeddedOptions) -> None:
    lease_database(embedded_is_down, what="somebody").close()
    assert asyncio.run(check_database_connectivity())
    wait_until(lambda: _users(embedded_is_down) == (), "the lease of the question ends")


def _users(options: EmbeddedOptions) -> tuple[User, ...]:
    status = server_status(options)
    assert status is not None
    return status.users


def test_the_server_in_use_is_asked_and_kept(embedded_is_down: EmbeddedOptions, runtime: Runtime) -> None:
    async def ask_while_in_use() -> None:
        server = await runtime.manager.ensure_server()
        found = await check_database_connectivity()
        assert found.server == server.description  # another lease would say that the server was running
        assert found
        assert runtime.manager.server is server
        assert server.alive
        await runtime.close()

    asyncio.run(ask_while_in_use())


def test_the_guard_speaks_before_anything_is_sent(by_password: Dsn, use_url: UseUrl) -> None:
    use_url(by_password.with_database("shop").url())
    found = asyncio.run(check_database_connectivity())
    assert not found
    assert "does not say that it is for tests" in found.checks[0].found
    assert "DATAFLOW_TDD_ALLOW_DATABASE=shop" in (found.checks[0].option or "")


def test_invalid_settings_are_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAFLOW_TDD_TIMEOUT", "soon")
    found = asyncio.run(check_database_connectivity())
    assert not found
    assert "DATAFLOW_TDD_TIMEOUT 'soon'" in str(found)


def test_capabilities_of_the_role_that_tests_have(embedded_is_down: EmbeddedOptions) -> None:
    found = asyncio.run(check_server_capabilities())
    assert found
    assert found.capabilities is not None
    assert found.capabilities.role == "dataflow_test"
    assert not found.capabilities.superuser
    assert found.capabilities.create_database
    assert found.capabilities.pg_walinspect
    assert found.capabilities.version_number >= 140_000
    assert server_status(embedded_is_down) is None


def test_capabilities_of_a_superuser(options: EmbeddedOptions, use_url: UseUrl) -> None:
    start_server(options)
    admin = server_dsn(options, admin=True)
    assert admin is not None
    use_url(admin.url())
    found = asyncio.run(check_server_capabilities())
    stop_server(options, force=True)
    assert found.capabilities is not None
    assert found.capabilities.superuser


def test_a_role_that_may_not_create_databases_is_told_how(options: EmbeddedOptions, use_url: UseUrl) -> None:
    start_server(options)
    admin = server_dsn(options, admin=True)
    assert admin is not None

    async def ask() -> str:
        import asyncpg

        connection = await asyncpg.connect(**admin.asyncpg_arguments())
        await connection.execute("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN")
        use_url(replace(admin, user="plain").url())
        found = await check_server_capabilities()
        await connection.execute("DROP ROLE plain")
        await connection.close()
        assert found
        return str(found)

    text = asyncio.run(ask())
    stop_server(options, force=True)
    assert 'ALTER ROLE "plain" CREATEDB;' in text


def test_capabilities_that_cannot_be_asked_for_are_a_result(nobody_there: Dsn, use_url: UseUrl) -> None:
    use_url(nobody_there.url())
    found = asyncio.run(check_server_capabilities())
    assert not found
    assert found.capabilities is None
