"""What became of a test's connection, as an event or an error. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.errors import CommitEscaped, StatementTimeout
from dataflow.testing.events import CommitEscapes, ContextReleased
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.proof.escape import Escape, PutBack

if TYPE_CHECKING:
    from dataflow.testing.isolation.connection import TestConnection
    from dataflow.testing.sandbox.recording import Recorder


# Seconds; below that no test is slow by its statements.
_LONG_S = 0.01
NOT_ENDED = "its transaction could not be ended"


class Finished(NamedTuple):
    """How the end of a test went. :param teardown_s: seconds. :param problem, unproven: as in the event."""

    teardown_s: float
    problem: str | None = None
    harmless: bool = True
    unproven: str | None = None


def released(context: TDDTestContext, connection: TestConnection, finished: Finished) -> ContextReleased:
    log, recorder = connection.log, context.recorder
    data_s = log.data_s
    if recorder is not None:  # it knows prepared statements, cursors and other connections, too
        data_s = max(data_s, recorder.busy_s - log.schema_s)
    return ContextReleased(
        test_id=context.test_id,
        setup_ms=context.setup_s * 1e3,
        schema_ms=log.schema_s * 1e3,
        data_ms=data_s * 1e3,
        teardown_ms=finished.teardown_s * 1e3,
        statements=log.count,
        problem=finished.problem,
        harmless=finished.harmless,
        isolated=not log.outside,
        opened=connection.opened,
        unproven=finished.unproven,
        slowest=slowest_of(recorder, log.schema_s + data_s),
    )


def slowest_of(recorder: Recorder | None, took_s: float) -> str | None:
    """:param took_s: by all statements. Where that is little, nobody asks."""
    return recorder.slowest if recorder is not None and took_s > _LONG_S else None


def not_begun(context: TDDTestContext, limit_s: float) -> StatementTimeout:
    """:param limit_s: of the settings; that of the context goes before it."""
    return StatementTimeout(
        f"{context.test_id}: the server did not begin a transaction within {context.timeout or limit_s:g} s",
        cause="the server's process is stopped, or the machine is overloaded",
        remedy="look at the server; the connection was closed, the next test gets another one",
        option="DATAFLOW_TDD_TIMEOUT, --tdd-timeout, or timeout= of the context",
    )


_WAY_OUT = (
    "give that code connections of the test (context.connect, context.pool, tdd_psycopg.connect, tdd_engine), "
    'or mark the test tdd(isolation="database")'
)


def escapes(test_id: str, escape: Escape, beside: tuple[str, ...] = (), remedy: str = _WAY_OUT) -> CommitEscapes:
    """:param beside: other tests that ran at the same time."""
    stays = escape.put_back is PutBack.STAYS
    return CommitEscapes(
        test_id, escape.changes, escape.sessions, escape.put_back.value, stays, escape.why, beside, remedy
    )


def commit_escaped(event: CommitEscapes) -> CommitEscaped:
    """What to raise for it."""
    return CommitEscaped(
        str(event),
        cause="another connection than those of the test: of a pool or engine of the application, of a thread, "
        "of a process",
        remedy=event.remedy,
        option="DATAFLOW_TDD_ESCAPES, --tdd-escapes=error|warn",
    )
