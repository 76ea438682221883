"""Several statements in one round trip, past psycopg's cursors: these cost as much as small statements do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq.abc import PGresult

Row = list[str | None]


class Said(NamedTuple):
    """What a batch came to.

    :param rows: of all queries, as text. :param deleted: how many rows went in all.
    """

    rows: list[Row]
    deleted: int


def send(connection: psycopg.Connection, statements: Iterable[str]) -> Said:
    """Run statements, which hold all their values, one after the other.

    Whatever interrupts the wait for the answer, the connection is closed then: it would give that answer to the
    next question.

    :raises psycopg.Error: what the server said; statements behind the failed one were not run.
    """
    import psycopg
    from psycopg import generators
    from psycopg.pq import ExecStatus, TransactionStatus

    line = connection.pgconn
    line.send_query("; ".join(statements).encode())
    try:
        # Not by `get_result` alone: that waits with the lock of the interpreter, deaf to signals.
        results = connection.wait(generators.execute(line))
    finally:
        if line.transaction_status == TransactionStatus.ACTIVE:
            connection.close()
    rows: list[Row] = []
    deleted = 0
    for result in results:
        if result.status == ExecStatus.TUPLES_OK:
            rows += _rows(result)
        elif result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
        elif (result.command_status or b"").startswith(b"DELETE"):
            deleted += result.command_tuples or 0
    return Said(rows, deleted)


def _rows(result: PGresult) -> list[Row]:
    columns = range(result.nfields)
    return [[_text(result.get_value(row, column)) for column in columns] for row in range(result.ntuples)]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
