"""Carrying out a plan: in one transaction, as a superuser, with triggers and foreign keys left out, and alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.reset.batch import send
from dataflow.testing.reset.plan import DeleteRows, Plan, RestoreTable, SetSequence, Step
from dataflow.testing.reset.questions import places_text
from dataflow.testing.reset.seeds import Rows, Seeds

if TYPE_CHECKING:
    import psycopg

# The text of the error by which the server says that we are not alone. A session that came in after the log was
# read could have rows in it that it commits only after this; one that comes later is found in the log next time.
OCCUPIED = "somebody came in while the database was being put back"
# Statements are prepared, because planning them takes longer than all else that a small reset does.
# From this position on nothing in the log is ours: all rows were written before it. It is asked first: whoever
# writes after it is found, here or in the log.
_PREPARE_END = f"""
PREPARE dataflow_tdd_end AS
SELECT pg_current_wal_insert_lsn(),
       CASE WHEN pg_stat_get_db_numbackends({{oid}}) <> 1
              OR EXISTS (SELECT FROM pg_prepared_xact() WHERE dbid = {{oid}})
            THEN '{OCCUPIED}' ELSE '0' END::int,
       pg_stat_get_db_sessions({{oid}})
"""
_END = "EXECUTE dataflow_tdd_end"
# Whoever holds a lock here is somebody who came in.
_LOCK_LIMIT = "SET lock_timeout = '1s'"
_PREPARE_SETVAL = "PREPARE dataflow_tdd_setval (regclass, bigint, bool) AS SELECT setval($1, $2, $3)"
_PREPARE_DELETE = "PREPARE dataflow_tdd_delete_{oid} (tid[]) AS DELETE FROM ONLY {name} WHERE ctid = ANY ($1)"


class Restored(NamedTuple):
    """:param up_to: position of the log behind all that was done. :param visits: sessions that there ever were in
    the database then. :param deleted: how many rows.
    """

    up_to: str
    visits: int
    deleted: int


class Restorer:
    """Puts one database back.

    :param connection: to it; the session must leave triggers and foreign keys out: constraints were checked when
        the template was built. :param database: its oid. :param seeds: the rows of the template.
    """

    def __init__(self, connection: psycopg.Connection, database: int, seeds: Seeds) -> None:
        self._connection = connection
        self._seeds = seeds
        self._prepared: set[int] = set()
        # Or psycopg deallocates all statements, ours included, after a ROLLBACK PREPARED.
        connection.prepare_threshold = None
        connection.execute(b"SET plan_cache_mode = force_generic_plan")
        connection.execute(_LOCK_LIMIT)
        connection.execute(_PREPARE_END.format(oid=database).encode())
        connection.execute(_PREPARE_SETVAL.encode())

    def carry_out(self, plan: Plan) -> Restored | None:
        """Put the database back; without a step, only see whether we are alone.

        :returns: None when somebody else came in: nothing was done, for it would not have been exact.
        :raises psycopg.Error: it did not work; nothing was changed then, or the connection is broken.
        """
        import psycopg

        seeds = self._seeds_for(plan.steps)
        self._prepare(plan.steps)
        try:
            return self._in_one_transaction(plan.steps, seeds)
        except BaseException as error:
            if not self._connection.closed:
                self._connection.rollback()
            if OCCUPIED in str(error) or isinstance(error, psycopg.errors.LockNotAvailable):
                return None
            raise

    def _in_one_transaction(self, steps: tuple[Step, ...], seeds: Mapping[int, Rows]) -> Restored:
        batch = ["BEGIN"]
        deleted = 0
        for step in steps:
            batch.append(_statement(step))
            if isinstance(step, RestoreTable) and (rows := seeds.get(step.relation.oid)) is not None:
                deleted += send(self._connection, batch).deleted
                batch.clear()
                copy_back(self._connection, step, rows)
        said = send(self._connection, [*batch, _END, "COMMIT"])
        up_to, _, visits = said.rows[-1]
        return Restored(up_to or "", int(visits or 0), deleted + said.deleted)

    def _seeds_for(self, steps: Iterable[Step]) -> dict[int, Rows]:
        """Read beforehand: it may take a copy of the template, and a while."""
        tables = [step.relation for step in steps if isinstance(step, RestoreTable)]
        return {table.oid: rows for table in tables if (rows := self._seeds.of(table)) is not None}

    def _prepare(self, steps: Iterable[Step]) -> None:
        new = [
            step.relation
            for step in steps
            if isinstance(step, DeleteRows) and step.relation.oid not in self._prepared
        ]
        if new:
            # Names are the server's own, quoted by it.
            send(self._connection, [_PREPARE_DELETE.format(oid=r.oid, name=r.name) for r in new])
            self._prepared.update(relation.oid for relation in new)


def _statement(step: Step) -> str:
    match step:
        case DeleteRows(relation, places):
            return f"EXECUTE dataflow_tdd_delete_{relation.oid}('{places_text(places)}')"
        case RestoreTable(relation):
            return f"DELETE FROM ONLY {relation.name}"
        case SetSequence(oid, state):
            return f"EXECUTE dataflow_tdd_setval({oid}, {state.last_value}, {str(state.is_called).lower()})"


def copy_back(connection: psycopg.Connection, step: RestoreTable, seeds: Rows) -> None:
    columns, rows = seeds
    listed = f"({columns})" if columns else ""
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {step.relation.name} {listed} FROM STDIN".encode()) as copy,
    ):
        copy.write(rows)
