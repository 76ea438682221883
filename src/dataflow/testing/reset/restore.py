"""Carrying out a plan: in one transaction, as a superuser, with triggers and foreign keys left out, and alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.reset.plan import DeleteRows, Plan, RestoreTable, SetSequence, Step
from dataflow.testing.reset.questions import places_text
from dataflow.testing.reset.seeds import Seeds

if TYPE_CHECKING:
    import psycopg

# The text of the error by which the server says that we are not alone. A session that came in after the log was
# read could have rows in it that it commits only after this; one that comes later is found in the log next time.
_OCCUPIED = "somebody came in while the database was being put back"
# Prepared, because planning it takes longer than all else that a small reset does.
_PREPARE_ALONE = f"""
PREPARE dataflow_tdd_alone AS
SELECT CASE WHEN pg_stat_get_db_numbackends({{oid}}) <> 1
              OR EXISTS (SELECT FROM pg_prepared_xact() WHERE dbid = {{oid}})
            THEN '{_OCCUPIED}' ELSE '0' END::int
"""
_ALONE = "EXECUTE dataflow_tdd_alone"
# Which transaction it was: its records are ours when the log is read the next time.
_END = "SELECT coalesce(pg_current_xact_id_if_assigned()::xid::text, '0'); COMMIT"


class Restored(NamedTuple):
    """:param xid: the transaction that did it, as the log names it; 0 if there was none.
    :param deleted: how many rows. :param occupied: why nothing was done: it would not have been exact."""

    xid: int = 0
    deleted: int = 0
    occupied: str | None = None


def prepare(connection: psycopg.Connection, database: int) -> None:
    """Once for each connection that restores. :param database: its oid."""
    # Or psycopg deallocates all statements, ours included, after a ROLLBACK PREPARED.
    connection.prepare_threshold = None
    connection.execute(_PREPARE_ALONE.format(oid=database).encode())


def restore(connection: psycopg.Connection, plan: Plan, seeds: Seeds) -> Restored:
    """Put the database of `connection` back; without a step, only see whether we are alone.

    The session must leave triggers and foreign keys out: constraints were checked when the template was built.

    :raises psycopg.Error: it did not work; nothing was changed then, or the connection is broken.
    """
    import psycopg

    try:
        if not plan.steps:
            _run(connection, [_ALONE])
            return Restored()
        return _carry_out(connection, plan, seeds)
    except psycopg.errors.InvalidTextRepresentation as error:
        if _OCCUPIED not in str(error):
            raise
        return Restored(occupied=_OCCUPIED)


def _carry_out(connection: psycopg.Connection, plan: Plan, seeds: Seeds) -> Restored:
    batch = ["BEGIN", _ALONE]
    deleted = 0
    try:
        for step in plan.steps:
            batch.append(_statement(step))
            if isinstance(step, RestoreTable) and (kept := seeds.of(step.relation)) is not None:
                deleted += _run(connection, batch)[1]
                batch.clear()
                _copy_back(connection, step, kept)
        batch.append(_END)
        xid, last_deleted = _run(connection, batch)
        return Restored(int(xid), deleted + last_deleted)
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise


def _statement(step: Step) -> str:
    # Names are the server's own, quoted by it.
    match step:
        case DeleteRows(relation, places):
            return f"DELETE FROM ONLY {relation.name} WHERE ctid = ANY ('{places_text(places)}'::tid[])"
        case RestoreTable(relation):
            return f"DELETE FROM ONLY {relation.name}"
        case SetSequence(state):
            name = state.name.replace("'", "''")
            return f"SELECT setval('{name}', {state.last_value}, {str(state.is_called).lower()})"


def _copy_back(connection: psycopg.Connection, step: RestoreTable, kept: tuple[str, bytes]) -> None:
    columns, rows = kept
    listed = f"({columns})" if columns else ""
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {step.relation.name} {listed} FROM STDIN".encode()) as copy,
    ):
        copy.write(rows)


def _run(connection: psycopg.Connection, batch: list[str]) -> tuple[str, int]:
    """Send all in one round trip; the first column of the last row that came back, and how many rows went."""
    cursor = connection.execute("; ".join(batch).encode())
    last, deleted = "", 0
    while True:
        if cursor.description:
            if row := cursor.fetchone():
                last = str(row[0])
        elif (cursor.statusmessage or "").startswith("DELETE"):
            deleted += cursor.rowcount
        if not cursor.nextset():
            return last, deleted
