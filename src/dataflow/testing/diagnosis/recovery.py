"""Getting a test's connection out of a failed transaction, without ever leaving the isolation.

What it does not do: run anything outside a transaction that will be rolled back. When nobody can tell any more
whether something was committed, the test may go on, and its end reports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dataflow.testing.diagnosis.model import Check, Diagnosis, Status, failure, info, ok
from dataflow.testing.errors import SavepointGone, TDDError, TransactionEnded, TransactionError
from dataflow.testing.runtime import runtime

if TYPE_CHECKING:
    from dataflow.testing.isolation.connection import TestConnection
    from dataflow.testing.isolation.context import TDDTestContext

TITLE = "Recovery"
_TIMEOUT_S = 5.0


class Outcome(StrEnum):
    """How far back it was necessary to go."""

    SAVEPOINT = "savepoint"  # the test is where it began, in its own transaction
    TRANSACTION = "transaction"  # in a new transaction
    BROKEN = "broken"  # the connection is closed
    REFUSED = "refused"  # nothing was done


@dataclass(frozen=True)
class Recovery(Diagnosis):
    """:param outcome: `bool()` is true when the connection can be used again."""

    outcome: Outcome = Outcome.REFUSED


async def recover_from_savepoint_error(connection: Any, context: TDDTestContext) -> Recovery:
    """Undo what the test did, by the gentlest means that works, so that it can go on; aborted or not.

    First back to the savepoint with which the test began. If that is gone: roll back the transaction and begin
    a new one. If that fails, or the server does not answer: close the connection. Do not call it inside
    ``async with connection.transaction():``, whose own savepoint goes with the rest.
    """
    refusal = _refusal(connection, context)
    if refusal is not None:
        return describe_recovery(Outcome.REFUSED, (refusal,))
    import asyncpg

    try:
        await runtime().transactions.rollback_to_savepoint(connection, context)
        return describe_recovery(Outcome.SAVEPOINT, ())
    except SavepointGone as error:
        return await _start_again(connection, context, _attempt("savepoint", error))
    except Exception as error:  # of a session that was ended, asyncpg raises more kinds than it documents
        if isinstance(error, asyncpg.InterfaceError) and not connection.is_closed():
            return describe_recovery(Outcome.REFUSED, (_busy(error),))
        return _give_up(connection, _attempt("savepoint", error))


def describe_recovery(outcome: Outcome, steps: Sequence[Check]) -> Recovery:
    """What was done and what that means. Pure."""
    return Recovery(TITLE, (*steps, *_CONCLUSIONS[outcome]), outcome)


async def _start_again(connection: TestConnection, context: TDDTestContext, step: Check) -> Recovery:
    try:
        await _new_transaction(connection, context)
    except Exception as error:
        return _give_up(connection, step, _attempt("transaction", error))
    return describe_recovery(Outcome.TRANSACTION, (step,))


def _give_up(connection: TestConnection, *steps: Check) -> Recovery:
    connection.terminate()  # nothing may run on it outside of a transaction
    return describe_recovery(Outcome.BROKEN, steps)


async def _new_transaction(connection: TestConnection, context: TDDTestContext) -> None:
    from dataflow.testing.isolation.sql import quote_identifier

    transactions, physical = runtime().transactions, connection.physical
    try:
        await transactions.end_test_transaction(connection, context)
    except TransactionEnded:
        await physical.ask("ROLLBACK", _TIMEOUT_S)
        physical.session.leave()
    connection.log.savepoints.clear()
    await transactions.begin_test_transaction(connection, context)
    # Without its savepoint the end of the test finds out, and tells, that this is not the first transaction.
    await physical.ask(f"RELEASE SAVEPOINT {quote_identifier(context.savepoint_name)}", _TIMEOUT_S)


def _refusal(connection: Any, context: TDDTestContext) -> Check | None:
    """Why nothing can be done with these two; None when something can."""
    from dataflow.testing.isolation.connection import TestConnection
    from dataflow.testing.isolation.context import ContextState

    try:
        held = context.connection
    except TDDError as error:
        return failure("context", error)
    if not isinstance(connection, TestConnection) or held is not connection:
        return failure(
            "connection",
            TransactionError(
                f"this is not the connection of the context {context.test_id}",
                cause="context and connection come from different tests, or the connection was made by hand",
                remedy="pass the test's own: recover_from_savepoint_error(context.connection, context)",
            ),
        )
    if context.state is ContextState.IN_TRANSACTION:
        return None
    return failure(
        "transaction",
        TransactionError(
            f"{context.test_id}: its transaction is not open",
            cause="begin_test_transaction was not called, or end_test_transaction was",
            remedy="begin it: await get_transaction_manager().begin_test_transaction(connection, context)",
        ),
    )


def _attempt(name: str, error: BaseException) -> Check:
    return info(name, f"not possible: {failure(name, error).found}")


def _busy(error: BaseException) -> Check:
    return Check(
        "connection",
        Status.FAILED,
        str(error),
        "await or cancel the task that uses it, then try again",
        cause="a statement of another task is still running on it",
    )


_CONCLUSIONS: dict[Outcome, tuple[Check, ...]] = {
    Outcome.SAVEPOINT: (
        ok("savepoint", "rolled back to the start of the test, which can go on in its own transaction"),
    ),
    Outcome.TRANSACTION: (
        ok("transaction", "rolled back and begun anew: what follows is isolated, and the test can go on"),
        Check(
            "isolation",
            Status.INFO,
            "nobody can tell whether something was committed before; the end of this test reports it",
            "never RELEASE the test's savepoint; write transactions as `async with connection.transaction():`",
        ),
    ),
    Outcome.BROKEN: (
        Check(
            "connection",
            Status.FAILED,
            "broken, and closed: the server has rolled back what it did",
            "end this test; the next one gets a new connection",
            cause="the server ended the session, or the network failed",
        ),
    ),
    Outcome.REFUSED: (),
}
