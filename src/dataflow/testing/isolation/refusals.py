"""Statements that would end the transaction of a test: which are refused, and what is sent instead. Pure."""

from __future__ import annotations

from dataflow.testing.errors import TransactionEnded
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.isolation.sql import Script, quote_identifier


def kept_in_transaction(context: TDDTestContext, read: Script, query: str) -> str:
    """What to send instead of a statement that would end the test's transaction.

    :raises TransactionEnded: it cannot be replaced.
    """
    if read.commits is not None:
        raise refused(context, read.commits)
    if releases_guard(context, read):
        raise refused(context, f"RELEASE SAVEPOINT {context.savepoint_name}")
    if not read.rolls_back:
        return query
    if len(read.heads) > 1:
        raise TransactionEnded(
            f"{context.test_id}: ROLLBACK inside a string of several statements was refused",
            cause="it would end the transaction that isolates this test",
            remedy="send ROLLBACK alone, or use `async with connection.transaction():`",
        )
    # It undoes the test's work so far, and the test stays in its transaction.
    return f"ROLLBACK TO SAVEPOINT {quote_identifier(context.savepoint_name)}"


def releases_guard(context: TDDTestContext, read: Script) -> bool:
    return ("release", context.savepoint_name) in read.savepoint_changes


def refused(context: TDDTestContext, words: str) -> TransactionEnded:
    return TransactionEnded(
        f"{context.test_id}: {words} was refused",
        cause="it would end the transaction that isolates this test, and leave its rows to the next tests",
        remedy="write transactions as `async with connection.transaction():`, which nests; nothing was sent, "
        "so the test may go on",
    )
