"""What became of a test's connection, as an event or an error. Pure."""

from __future__ import annotations

from dataflow.testing.errors import StatementTimeout
from dataflow.testing.events import ContextReleased
from dataflow.testing.isolation.connection import TestConnection
from dataflow.testing.isolation.context import TDDTestContext


def released(
    context: TDDTestContext,
    connection: TestConnection,
    teardown_s: float,
    problem: str | None,
    harmless: bool,
) -> ContextReleased:
    log = connection.log
    return ContextReleased(
        test_id=context.test_id,
        setup_ms=context.setup_s * 1e3,
        schema_ms=log.schema_s * 1e3,
        data_ms=log.data_s * 1e3,
        teardown_ms=teardown_s * 1e3,
        statements=log.count,
        problem=problem,
        harmless=harmless,
        isolated=not log.outside,
        opened=connection.opened,
    )


def not_begun(context: TDDTestContext, limit_s: float) -> StatementTimeout:
    """:param limit_s: of the settings; that of the context goes before it."""
    return StatementTimeout(
        f"{context.test_id}: the server did not begin a transaction within {context.timeout or limit_s:g} s",
        cause="the server's process is stopped, or the machine is overloaded",
        remedy="look at the server; the connection was closed, the next test gets another one",
        option="DATAFLOW_TDD_TIMEOUT, --tdd-timeout, or timeout= of the context",
    )
