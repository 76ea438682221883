"""What became of a transaction: is one open, is it aborted, which savepoints are in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dataflow.testing.diagnosis.model import Check, Detail, Diagnosis, Status, info, ok
from dataflow.testing.runtime import runtime

if TYPE_CHECKING:
    from dataflow.testing.isolation.context import TDDTestContext

TITLE = "Transaction"
_TIMEOUT_S = 5.0
_QUERY = "SELECT pg_current_xact_id_if_assigned()::text, current_setting('transaction_isolation')"
_NOT_LISTED = "savepoints of `async with connection.transaction():` blocks are not among them"


class State(StrEnum):
    """What a connection is doing, as far as transactions go."""

    IDLE = "not in a transaction"
    OPEN = "in a transaction"
    ABORTED = "in an aborted transaction"
    BUSY = "busy with a statement"
    CLOSED = "closed"
    BROKEN = "broken"
    UNREACHABLE = "not usable here"


@dataclass(frozen=True)
class Facts:
    """:param transaction_id: None while nothing was written, or when it cannot be asked.
    :param savepoints: as the connection's log knows them; None for a connection that is not a test's.
    :param test_savepoint: the one that guards the test; None when the test's transaction is not begun.
    """

    state: State
    transaction_id: str | None = None
    isolation_level: str | None = None
    savepoints: tuple[str, ...] | None = None
    test_savepoint: str | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class TransactionDiagnosis(Diagnosis):
    facts: Facts = Facts(State.CLOSED)

    @property
    def state(self) -> State:
        return self.facts.state


async def diagnose_savepoint_issue(connection: Any) -> TransactionDiagnosis:
    """Look at the transaction of a connection: one of a test's, or any other of asyncpg. Changes nothing.

    Works in an aborted transaction too, where PostgreSQL answers no question: then what the client knows is
    all there is. PostgreSQL shows nobody its savepoints, so they come from the statements that were sent.
    """
    physical, facts = _client_side(connection)
    if facts.state is State.OPEN or facts.state is State.IDLE:
        facts = await _ask(physical, facts)
    return describe_transaction(facts)


diagnose_transaction = diagnose_savepoint_issue


def context_of(connection: Any) -> TDDTestContext | None:
    """The context that holds `connection` now."""
    manager = runtime().manager if runtime().started else None
    if manager is None or connection not in manager.active_connections.values():
        return None
    return next(context for context in manager.active_contexts if context.connection is connection)


def describe_transaction(facts: Facts) -> TransactionDiagnosis:
    """The verdict on these facts. Pure."""
    checks = [_state_check(facts)]
    if facts.state in (State.OPEN, State.ABORTED):
        checks.append(info("transaction id", _id_text(facts)))
        checks.append(
            info("isolation level", facts.isolation_level or "unknown while the transaction is aborted")
        )
        checks.append(_savepoint_check(facts))
    return TransactionDiagnosis(TITLE, tuple(checks), facts)


def _client_side(connection: Any) -> tuple[Any, Facts]:
    """What can be told without asking the server."""
    import asyncio

    from dataflow.testing.errors import TDDError
    from dataflow.testing.isolation.connection import TestConnection
    from dataflow.testing.isolation.context import ContextState

    facts = Facts(State.IDLE)
    physical = connection
    if isinstance(connection, TestConnection):
        try:
            physical = connection.physical
        except TDDError as error:
            return None, replace(facts, state=State.UNREACHABLE, trouble=str(error))
        context = context_of(connection)
        begun = context is not None and context.state is ContextState.IN_TRANSACTION
        guard = context.savepoint_name if context is not None and begun else None
        facts = replace(facts, savepoints=tuple(connection.log.savepoints), test_savepoint=guard)
    if physical.is_closed():
        return physical, replace(facts, state=State.CLOSED)
    if getattr(physical, "_loop", None) not in (None, asyncio.get_running_loop()):
        trouble = "it was opened in another event loop, and can be used only there"
        return physical, replace(facts, state=State.UNREACHABLE, trouble=trouble)
    inside = physical.is_in_transaction() or (facts.test_savepoint is not None and physical.isolated)
    return physical, replace(facts, state=State.OPEN if inside else State.IDLE)


async def _ask(physical: Any, facts: Facts) -> Facts:
    """Add what the server says. The physical connection is asked, so that the test's log stays as it is."""
    import asyncpg

    try:
        transaction_id, level = await physical.fetchrow(_QUERY, timeout=_TIMEOUT_S)
    except asyncpg.InFailedSQLTransactionError:
        return replace(facts, state=State.ABORTED)
    except asyncpg.InterfaceError as error:
        closed = physical.is_closed()
        return replace(facts, state=State.CLOSED if closed else State.BUSY, trouble=str(error))
    except Exception as error:
        return replace(facts, state=State.BROKEN, trouble=f"{type(error).__name__}: {error}")
    return replace(facts, transaction_id=transaction_id, isolation_level=level)


def _state_check(facts: Facts) -> Check:
    name, found = "state", f"{facts.state}{f': {facts.trouble}' if facts.trouble else ''}"
    if facts.state is State.OPEN:
        return ok(name, found)
    if facts.state is State.IDLE and facts.test_savepoint is None:
        return ok(name, found)
    cause, remedy = _ADVICE[facts.state]
    return Check(name, Status.FAILED, found, remedy, cause=cause)


def _id_text(facts: Facts) -> str:
    if facts.transaction_id is not None:
        return facts.transaction_id
    return (
        "unknown while the transaction is aborted"
        if facts.state is State.ABORTED
        else "none: nothing was written"
    )


def _savepoint_check(facts: Facts) -> Check:
    if facts.savepoints is None:
        return info(
            "savepoints", "unknown: this is not the connection of a test, and PostgreSQL does not list them"
        )
    guard = (facts.test_savepoint,) if facts.test_savepoint else ()
    details: dict[str, Detail] = {"open": (*guard, *facts.savepoints)}
    count = len(guard) + len(facts.savepoints)
    found = f"{count} as far as the statements that were sent tell; {_NOT_LISTED}"
    return Check("savepoints", Status.INFO, found, details=details)


# For each state that is a problem: its likely cause, and the way out.
_ADVICE: dict[State, tuple[str, str]] = {
    State.IDLE: (
        "the test ended the transaction that isolates it",
        "write transactions as `async with connection.transaction():`; rows may have stayed in the database",
    ),
    State.ABORTED: (
        "a statement failed, and PostgreSQL refuses all others until a rollback",
        "await recover_from_savepoint_error(connection, context), or put what may fail into "
        "`async with connection.transaction():`",
    ),
    State.BUSY: (
        "two tasks use the connection at the same time",
        "await the one before starting the other, or give each a connection of its own",
    ),
    State.CLOSED: (
        "the test closed it, or the server ended it",
        "the next test gets a new one; look at the server's log if nobody closed this one",
    ),
    State.BROKEN: (
        "the server ended the session, the network failed, or the server does not react",
        "end this test, the next one gets a new connection; look at the server's log",
    ),
    State.UNREACHABLE: (
        "it was kept beyond its test or its event loop",
        "take the connection from tdd_test_context in the test that uses it",
    ),
}
