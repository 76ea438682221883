"""Carrying out a plan: in one transaction, as a superuser, with triggers and foreign keys left out, and alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.reset.batch import send
from dataflow.testing.reset.plan import DeleteRows, Plan, RestoreTable, SetSequence, Step
from dataflow.testing.reset.questions import places_text
from dataflow.testing.reset.seeds import Seeds

if TYPE_CHECKING:
    import psycopg

# The text of the error by which the server says that we are not alone. A session that came in after the log was
# read could have rows in it that it commits only after this; one that comes later is found in the log next time.
_OCCUPIED = "somebody came in while the database was being put back"
# Statements are prepared, because planning them takes longer than all else that a small reset does.
_PREPARE_ALONE = f"""
PREPARE dataflow_tdd_alone AS
SELECT CASE WHEN pg_stat_get_db_numbackends({{oid}}) <> 1
              OR EXISTS (SELECT FROM pg_prepared_xact() WHERE dbid = {{oid}})
            THEN '{_OCCUPIED}' ELSE '0' END::int
"""
_ALONE = "EXECUTE dataflow_tdd_alone"
_PREPARE_SETVAL = "PREPARE dataflow_tdd_setval (regclass, bigint, bool) AS SELECT setval($1, $2, $3)"
_PREPARE_DELETE = "PREPARE dataflow_tdd_delete_{oid} (tid[]) AS DELETE FROM ONLY {name} WHERE ctid = ANY ($1)"
# Which transaction it was: its records are ours when the log is read the next time.
_END = "SELECT pg_current_xact_id_if_assigned()::xid"


class Restored(NamedTuple):
    """:param xid: the transaction that did it, as the log names it; 0 if there was none.
    :param deleted: how many rows. :param occupied: why nothing was done: it would not have been exact."""

    xid: int = 0
    deleted: int = 0
    occupied: str | None = None


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
        connection.execute(_PREPARE_ALONE.format(oid=database).encode())
        connection.execute(_PREPARE_SETVAL.encode())

    def carry_out(self, plan: Plan) -> Restored:
        """Put the database back; without a step, only see whether we are alone.

        :raises psycopg.Error: it did not work; nothing was changed then, or the connection is broken.
        """
        import psycopg

        try:
            if not plan.steps:
                send(self._connection, [_ALONE])
                return Restored()
            return self._carry_out(plan.steps)
        except psycopg.Error as error:
            if _OCCUPIED not in str(error):
                raise
            return Restored(occupied=_OCCUPIED)

    def _carry_out(self, steps: tuple[Step, ...]) -> Restored:
        self._prepare(steps)
        batch = ["BEGIN", _ALONE]
        deleted = 0
        try:
            for step in steps:
                batch.append(_statement(step))
                if isinstance(step, RestoreTable) and (kept := self._seeds.of(step.relation)) is not None:
                    deleted += send(self._connection, batch).deleted
                    batch.clear()
                    copy_back(self._connection, step, kept)
            said = send(self._connection, [*batch, _END, "COMMIT"])
            return Restored(int(said.rows[-1][0] or 0), deleted + said.deleted)
        except BaseException:
            if not self._connection.closed:
                self._connection.rollback()
            raise

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


def copy_back(connection: psycopg.Connection, step: RestoreTable, kept: tuple[str, bytes]) -> None:
    columns, rows = kept
    listed = f"({columns})" if columns else ""
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {step.relation.name} {listed} FROM STDIN".encode()) as copy,
    ):
        copy.write(rows)
