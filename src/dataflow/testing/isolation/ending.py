"""The end of a rollback test: its transaction is undone, and what was committed meanwhile is judged."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import NamedTuple

import asyncpg

from dataflow.testing.errors import TransactionEnded
from dataflow.testing.events import CommitEscapes, Emit
from dataflow.testing.isolation.connection import TestConnection
from dataflow.testing.isolation.context import ContextState, TDDTestContext
from dataflow.testing.isolation.outcomes import NOT_ENDED, Finished, commit_escaped, escapes, released
from dataflow.testing.isolation.physical import PhysicalConnection
from dataflow.testing.isolation.reuse import BROKEN
from dataflow.testing.isolation.rollback import TDDTransactionManager
from dataflow.testing.masking import mask
from dataflow.testing.proof.escape import PutBack, Verdict
from dataflow.testing.proof.horizon import Window

Judge = Callable[[Window], Verdict]

log = logging.getLogger("dataflow.testing")


class Undone(NamedTuple):
    """:param problem: what was wrong with the connection. :param committed: numbers of transactions that were
    committed meanwhile, on the whole server; None: it could not be asked.
    """

    problem: str | None
    committed: tuple[int, ...] | None


class Undoing(NamedTuple):
    """How the transaction of a test is undone.

    :param lost: is given a connection that broke. :param give_back: takes the connection from the test.
    """

    transactions: TDDTransactionManager
    lost: Callable[[PhysicalConnection], None]
    give_back: Callable[[TDDTestContext], Awaitable[None]]

    async def roll_back(self, connection: TestConnection, context: TDDTestContext) -> Undone:
        """That of a broken connection the server has undone.

        :raises TransactionEnded: the transaction is not the one that was begun.
        """
        in_its_loop = connection.in_its_loop
        physical = connection.retire()
        if physical.is_closed() or not in_its_loop:
            self.transactions.forget(context)
            connection.forbid_reuse()
            self.lost(physical)
            return Undone(None, None)
        try:
            if physical.cancelling:
                await physical.settle()
            await physical.quiet()
            return Undone(None, await self.transactions.roll_back(physical, connection, context))
        except asyncpg.InterfaceError as error:
            # Closed, not terminated: closing cancels the statement, whose locks would block the next test.
            connection.forbid_reuse()
            problem = f"{context.test_id}: its connection was closed, because it was still in use: {error}"
            return Undone(problem, None)
        except (*BROKEN, TimeoutError):
            self.lost(physical)
        return Undone(None, None)


class Endings:
    """
    :param judge: says what of the transactions that were committed meanwhile concerns the test.
    :param strict: whether it is an error if there was something. :param pollute: is told why no later test can
        trust the database.
    """

    def __init__(
        self,
        undoing: Undoing,
        judge: Judge,
        strict: Callable[[], bool],
        emit: Emit,
        pollute: Callable[[str], None],
    ) -> None:
        self._undoing = undoing
        self._judge = judge
        self._strict = strict
        self._emit = emit
        self._pollute = pollute

    async def end(self, connection: TestConnection, context: TDDTestContext, beside: tuple[str, ...]) -> None:
        """Roll back, judge, give the connection back and tell.

        :param beside: other tests that run at the same time.
        :raises TransactionEnded: the test left its transaction.
        :raises CommitEscaped: something was committed in its database meanwhile, and that is an error.
        """
        started = perf_counter()
        finished, verdict = Finished(0.0), Verdict()
        context.ending = True
        try:
            if context.state is ContextState.IN_TRANSACTION:
                finished = Finished(0.0, unproven=NOT_ENDED)
                problem, committed = await self._undoing.roll_back(connection, context)
                verdict = self._judged(connection, context, committed)
                finished = Finished(0.0, problem, unproven=verdict.unproven)
        except TransactionEnded as error:
            verdict = self._judged(connection, context, None)
            finished = Finished(0.0, error.what, harmless=verdict.restored, unproven=verdict.unproven)
            if not verdict.restored:
                self._pollute(error.what)
            raise
        finally:
            await self._undoing.give_back(context)
            context.ending = False
            escape = escapes(context.test_id, verdict.escape, beside) if verdict.escape is not None else None
            self._tell(context, connection, finished._replace(teardown_s=perf_counter() - started), escape)
        if escape is not None and self._strict():
            raise commit_escaped(escape)

    def _judged(
        self, connection: TestConnection, context: TDDTestContext, committed: tuple[int, ...] | None
    ) -> Verdict:
        if committed == () or context.horizon is None:
            return Verdict()  # nothing has to be asked
        window = Window(context.horizon, committed, context.held_since or 0.0, (connection.backend_pid,))
        verdict = self._judge(window)
        if verdict.escape is not None and verdict.escape.put_back is PutBack.REPLACED:
            connection.forbid_reuse()
        return verdict

    def _tell(
        self,
        context: TDDTestContext,
        connection: TestConnection,
        finished: Finished,
        escape: CommitEscapes | None,
    ) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("ended: %s, %s", mask(context.holder), finished.problem or "rolled back")
        self._emit(released(context, connection, finished))
        if escape is not None:
            self._emit(escape)
