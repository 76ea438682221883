"""The parts work together, and are left as they were found."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.diagnosis.conftest import UseUrl

from dataflow.testing.diagnosis.infrastructure import PARTS, check_tdd_infrastructure_status
from dataflow.testing.diagnosis.model import Status
from dataflow.testing.dsn import Dsn
from dataflow.testing.events import Event
from dataflow.testing.runtime import Runtime
from dataflow.testing.server.embedded import EmbeddedOptions, server_status


def test_all_parts_work_and_nothing_is_left(embedded_is_down: EmbeddedOptions, runtime: Runtime) -> None:
    heard: list[Event] = []
    runtime.listener = listener = heard.append
    status = asyncio.run(check_tdd_infrastructure_status())
    assert status
    assert [check.name for check in status.checks] == ["mode", *PARTS]
    assert [check.status for check in status.checks[1:]] == [Status.OK] * 4
    assert "embedded PostgreSQL" in status.checks[1].found
    assert not runtime.started
    assert not runtime.is_tdd_mode()
    assert runtime.listener == listener
    assert heard == []
    assert server_status(embedded_is_down) is None


def test_a_mode_switched_off_skips_the_rest(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
    monkeypatch.setenv("DATAFLOW_TDD_MODE", "false")
    status = asyncio.run(check_tdd_infrastructure_status())
    assert not status
    assert [check.status for check in status.checks] == [Status.FAILED, *[Status.SKIPPED] * 4]
    assert not runtime.started


def test_a_server_that_cannot_be_reached_skips_what_needs_it(nobody_there: Dsn, use_url: UseUrl) -> None:
    use_url(nobody_there.url())
    status = asyncio.run(check_tdd_infrastructure_status())
    assert [check.name for check in status.failed] == ["database manager"]
    assert [check.status for check in status.checks[2:]] == [Status.SKIPPED] * 3


def test_invalid_settings_are_a_failed_check(use_url: UseUrl) -> None:
    use_url("postgresql://u:12/s3cret@h/a_test")
    status = asyncio.run(check_tdd_infrastructure_status())
    assert not status
    assert "s3cret" not in str(status)


def test_inside_a_test_its_connection_and_transaction_stay(
    by_password: Dsn, use_url: UseUrl, runtime: Runtime
) -> None:
    use_url(by_password.url())

    async def check_in_a_test() -> None:
        async with runtime.test_context("mine") as context:
            await context.connection.execute("CREATE TABLE mine (i int)")
            assert await check_tdd_infrastructure_status()
            assert await context.connection.fetchval("SELECT count(*) FROM mine") == 0
            assert list(runtime.manager.active_connections) == ["mine"]
        await runtime.close()

    asyncio.run(check_in_a_test())


def test_a_server_in_use_stays_in_use(by_password: Dsn, use_url: UseUrl, runtime: Runtime) -> None:
    use_url(by_password.url())

    async def check_between_tests() -> None:
        await runtime.manager.initialize()
        server = runtime.manager.server
        assert await check_tdd_infrastructure_status()
        assert runtime.manager.server is server
        await runtime.close()

    asyncio.run(check_between_tests())


def test_an_exhausted_pool_is_found_out(
    by_password: Dsn, monkeypatch: pytest.MonkeyPatch, use_url: UseUrl, runtime: Runtime
) -> None:
    use_url(by_password.url())
    monkeypatch.setenv("DATAFLOW_TDD_POOL_SIZE", "1")
    monkeypatch.setenv("DATAFLOW_TDD_POOL_TIMEOUT", "2")

    async def check_in_a_test() -> None:
        async with runtime.test_context("the holder"):
            status = await check_tdd_infrastructure_status()
            assert [check.name for check in status.failed] == ["database connection"]
            assert "the holder" in str(status)
        await runtime.close()

    asyncio.run(check_in_a_test())
