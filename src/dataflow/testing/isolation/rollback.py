"""`TDDTransactionManager`: the transaction that isolates a test, and the savepoints inside it."""

from __future__ import annotations

from typing import TypeVar

import asyncpg

from dataflow.testing.errors import SavepointGone, TransactionError
from dataflow.testing.isolation.connection import TestConnection
from dataflow.testing.isolation.context import ContextState, TDDTestContext
from dataflow.testing.isolation.physical import PhysicalConnection
from dataflow.testing.isolation.questions import Asking, PreparedGone
from dataflow.testing.isolation.refusals import transaction_ended
from dataflow.testing.isolation.sql import quote_identifier

T = TypeVar("T")


class TDDTransactionManager:
    """Begins and ends the transaction of a test, always by rolling back unless told to commit.

    At the end it rolls back to the test's own savepoint first. That fails when the transaction is not the one
    that was begun, so a test that got out of its transaction is found out, and not passed over in silence.
    """

    def __init__(self) -> None:
        self._open: set[TDDTestContext] = set()

    async def begin_test_transaction(self, connection: TestConnection, context: TDDTestContext) -> None:
        """Open the test's transaction and its savepoint. In one round trip, but for the first test of a session
        and the first one that finds others at work.

        :raises TransactionError: the context has an open transaction already.
        """
        physical = _physical(connection)
        if context.state is ContextState.IN_TRANSACTION:
            raise TransactionError(
                f"{context.test_id}: its transaction is open already",
                cause="begin_test_transaction was called twice, or the fixture has begun it",
                remedy="for a nested block use `async with connection.transaction():` or create_savepoint",
            )
        session = physical.session
        sql = f"BEGIN ISOLATION LEVEL {context.isolation_level}; SAVEPOINT {_quoted(context)}"
        begun = await _asked(physical, physical.questions.begin(sql), context.timeout)
        session.enter(deferred=begun.deferred)
        context.horizon = context.horizon or begun.horizon  # a recovery may begin once more
        self._open.add(context)
        context.state = ContextState.IN_TRANSACTION

    async def end_test_transaction(
        self, connection: TestConnection, context: TDDTestContext, rollback: bool | None = None
    ) -> None:
        """End the test's transaction: undo all, or with ``rollback=False`` really commit.

        After a commit, isolation is your business: the next tests see what was written.

        :raises TransactionEnded: the transaction is not the one that was begun.
        :raises TransactionError: none was begun.
        """
        if context.state is ContextState.ENDED:
            return
        if context not in self._open:
            raise TransactionError(
                f"{context.test_id}: no test transaction to end",
                cause="begin_test_transaction was not called with this context",
                remedy="call it first, or use the fixture tdd_test_context, which does both",
            )
        physical = _physical(connection)
        if rollback is False:
            context.state = ContextState.ENDED
            connection.log.outside = True  # settings and temporary tables stay as well
            context.horizon = None
            self._open.discard(context)
            await physical.ask("; ".join([*physical.session.settled(), "COMMIT"]))
            physical.session.leave()
            return
        await self.roll_back(physical, connection, context)

    async def roll_back(
        self, physical: PhysicalConnection, connection: TestConnection, context: TDDTestContext
    ) -> tuple[int, ...]:
        """Undo the test's transaction; its handle may be over already.

        :returns: numbers of transactions that were committed since it began, on the whole server.
        :raises TransactionEnded: the transaction is not the one that was begun.
        """
        self._open.discard(context)
        context.state = ContextState.ENDED
        physical.forget_transactions()
        assert context.horizon is not None, "the transaction was begun"
        sql = f"ROLLBACK TO SAVEPOINT {_quoted(context)}; ROLLBACK"
        used = physical.session.used
        try:
            committed = await _asked(physical, physical.questions.end(sql, context.horizon, used=used))
            physical.session.leave()
            await physical.hear()
            return committed
        except (asyncpg.InvalidSavepointSpecificationError, asyncpg.NoActiveSQLTransactionError) as error:
            connection.forbid_reuse()
            raise transaction_ended(context.test_id, connection.log.last_shown or "none") from error

    def forget(self, context: TDDTestContext) -> None:
        """Drop what is known of a context whose connection is gone."""
        self._open.discard(context)

    async def create_savepoint(
        self, connection: TestConnection, context: TDDTestContext, name: str | None = None
    ) -> str:
        """Set a savepoint in the test's transaction; returns its name (made up when not given)."""
        name = name or f"{context.savepoint_name}_{len(connection.log.savepoints) + 1}"
        sql = f"SAVEPOINT {quote_identifier(name)}"
        if connection.is_in_transaction():
            await connection.execute(sql)
        else:
            await connection.around(sql)
        return name

    async def rollback_to_savepoint(
        self, connection: TestConnection, context: TDDTestContext, name: str | None = None
    ) -> None:
        """Undo all since the savepoint; by default since the test began.

        :raises SavepointGone: there is no such savepoint; the transaction is aborted then.
        """
        await _savepoint(connection, context, "ROLLBACK TO SAVEPOINT", name)

    async def release_savepoint(self, connection: TestConnection, context: TDDTestContext, name: str) -> None:
        """Forget a savepoint and keep what was done since; the test's own one cannot be released.

        :raises SavepointGone: there is no such savepoint; the transaction is aborted then.
        """
        if name == context.savepoint_name:
            raise TransactionError(
                f"{context.test_id}: {name} is the savepoint that guards the test, it cannot be released",
                remedy="set one of your own with create_savepoint and release that",
            )
        await _savepoint(connection, context, "RELEASE SAVEPOINT", name)


async def _asked(physical: PhysicalConnection, asking: Asking[T], timeout: float | None = None) -> T:
    """:param timeout: seconds for each question."""
    question = next(asking)
    try:
        while True:
            try:
                rows = await physical.ask(question, timeout)
            except asyncpg.InvalidSQLStatementNameError:
                question = asking.throw(PreparedGone())
            else:
                question = asking.send(rows)
    except StopIteration as over:
        value: T = over.value
        return value


async def _savepoint(connection: TestConnection, context: TDDTestContext, action: str, name: str | None) -> None:
    name = name or context.savepoint_name
    sql = f"{action} {quote_identifier(name)}"
    try:
        if connection.is_in_transaction() and name != context.savepoint_name:
            await connection.execute(sql)
        else:
            await connection.around(sql)
    except (asyncpg.InvalidSavepointSpecificationError, asyncpg.NoActiveSQLTransactionError) as error:
        known = ", ".join((context.savepoint_name, *connection.log.savepoints))
        raise SavepointGone(
            f"{context.test_id}: savepoint {name!r} does not exist; open ones: {known}",
            cause="it was released, or a rollback to an earlier savepoint took it along",
            remedy="rollback_to_savepoint without a name goes back to the start of the test",
        ) from error


def _physical(connection: TestConnection) -> PhysicalConnection:
    if not isinstance(connection, TestConnection):
        raise TransactionError(
            f"a test transaction needs the connection of a test, not {type(connection).__name__}",
            remedy="use get_database_manager().get_test_connection(context), or context.connection",
        )
    return connection.physical


def _quoted(context: TDDTestContext) -> str:
    return quote_identifier(context.savepoint_name)
