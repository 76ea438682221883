"""Putting a database back as it was, from the write-ahead log."""

from __future__ import annotations

import logging
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING

from dataflow.testing.lease.cluster import cluster_change
from dataflow.testing.lease.database import Database
from dataflow.testing.reset.footprint import Footprint, fold
from dataflow.testing.reset.log import MOST_BYTES, Inside, Log, Written
from dataflow.testing.reset.outcome import Outcome
from dataflow.testing.reset.plan import (
    DeleteRows,
    Plan,
    RestoreTable,
    SetSequence,
    Verdicts,
    catalog_questions,
    decide,
    doubtful_catalogs,
    schema_change,
    table_questions,
)
from dataflow.testing.reset.questions import ask, catalogs_moved
from dataflow.testing.reset.restore import OCCUPIED, Restorer
from dataflow.testing.reset.seeds import Seeds

if TYPE_CHECKING:
    import psycopg

# Dead rows of one relation after which it is cleaned.
LITTER_ROWS = 1_000
_LEAST_LITTER = 10
# What was seen so many seconds ago still holds: nobody connects, writes and commits in less.
_FRESH_S = 0.001

logger = logging.getLogger("dataflow.testing")


class InPlace:
    """:param log: read over the maintenance connection. :param seeds: the rows of the template."""

    def __init__(self, log: Log, maintenance: psycopg.Connection, seeds: Seeds) -> None:
        self._log = log
        self._maintenance = maintenance
        self._seeds = seeds

    def watch(self, database: Database) -> None:
        """From now on changes of a new database are the test's."""
        database.restorer = Restorer(database.session, database.oid, self._seeds)
        # The log would not tell that they were advanced.
        ahead = (SetSequence(oid, state) for oid, state in database.shape.sequences.items() if state.ahead)
        if steps := tuple(ahead):
            database.restorer.carry_out(Plan(steps))
        database.since = self._log.position()

    def untouched(self, database: Database) -> bool:
        """Whether nobody is in it, and wrote to it since it was put back; from now on changes are the test's.

        What an earlier test left running may try again.
        """
        if monotonic() - database.seen < _FRESH_S:
            return True
        since, inside = self._log.glance(database.oid)
        if not inside.alone:
            return False
        if inside.visits == database.visits:
            database.since = since
            return True
        if database.shape.unlogged:  # what a visitor wrote there would be in no log
            return False
        written, footprint = self._since_put_back(database)
        if footprint is None or not written.inside.alone:
            return False
        return not any(touched.changed for touched in footprint.local.values())

    def written_when_alone(self, database: Database, grace_s: float) -> Written | None:
        """What was written, read as soon as nobody else is inside; None when it takes more than that to be alone.

        :param grace_s: seconds that sessions get to end by themselves.
        """
        deadline = monotonic() + grace_s
        pause_s = 0.0
        while isinstance(found := self._log.read_if_alone(database.since, database.oid), Inside):
            if found.sessions == 1 or monotonic() >= deadline:
                return None
            sleep(pause_s)
            pause_s = min(pause_s * 1.5 + 0.0001, 0.01)
        return found

    def put_back(self, database: Database, written: Written | None) -> Outcome:
        """Nobody else may be in the database.

        :param written: since it was ready, if that was read already.
        :raises psycopg.Error: the server went away, or refused something; the database must not be used again.
        """
        started = perf_counter()
        if written is None:
            written = self._log.read(database.since, database.oid)
        if written.inside.unfinished:
            return Outcome(Plan(replace="a replication slot was left in it"), written, duration_ms=_ms(started))
        if written.too_long:
            plan = Plan(replace=f"more than {MOST_BYTES >> 20} MB of log were written meanwhile")
            return Outcome(plan, written, duration_ms=_ms(started))
        footprint = fold(written.records)
        cluster = cluster_change(self._maintenance, footprint, database)
        touched = tuple((database.shape.files.get(file), what) for file, what in footprint.local.items())
        plan = Plan(replace=cluster.own) if cluster.own is not None else self._plan(database, footprint)
        reason = None
        if plan.replace is None:
            reason = self._carry_out(database, plan, footprint, written) or self._tidy(database, footprint)
        if reason is not None:
            plan = plan._replace(replace=reason)
        return Outcome(plan, written, touched, _ms(started), cluster)

    def _plan(self, database: Database, footprint: Footprint) -> Plan:
        shape = database.shape
        catalogs, tables = self._catalogs(database, footprint), Verdicts()
        if schema_change(footprint, shape, catalogs) is None and (
            questions := table_questions(footprint, shape, catalogs)
        ):
            tables = ask(database.session, questions)
        return decide(footprint, shape, catalogs, tables)

    def _catalogs(self, database: Database, footprint: Footprint) -> Verdicts:
        if doubtful_catalogs(footprint, database.shape) and catalogs_moved(database.session, database.shape):
            return Verdicts(catalogs_moved=True)
        questions = catalog_questions(footprint, database.shape)
        return ask(database.session, questions) if questions else Verdicts()

    def _carry_out(self, database: Database, plan: Plan, footprint: Footprint, written: Written) -> str | None:
        """Why it is not as in the template after all, or None."""
        up_to, visits, deleted = written.up_to, written.inside.visits, 0
        if footprint.local or plan.steps:
            assert database.restorer is not None, "it is watched"
            restored = database.restorer.carry_out(plan)
            if restored is None or restored.visits != visits:
                return OCCUPIED
            up_to, deleted = restored.up_to, restored.deleted
        database.since, database.visits, database.seen = up_to, visits, monotonic()
        for step in plan.steps:
            if isinstance(step, DeleteRows):
                database.litter[step.relation.name] += len(step.places)
            elif isinstance(step, RestoreTable):
                # What was rolled back in an unlogged table nobody can count.
                database.litter[step.relation.name] += max(deleted, _LEAST_LITTER)
        if plan.moved:
            database.shape = database.shape.with_files(plan.moved)
        return None

    def _tidy(self, database: Database, footprint: Footprint) -> str | None:
        """Clean relations of the dead rows that we leave, before they slow anything down.

        Returns why the database is not as in the template after all, or None.
        """
        for filenode, touched in footprint.local.items():
            relation = database.shape.files.get(filenode)
            if relation is not None and relation.catalog and relation.kind == "r":
                database.litter[relation.name] += len(touched.came)
        full = [name for name, rows in database.litter.items() if rows >= LITTER_ROWS]
        if not full:
            return None
        for name in full:
            del database.litter[name]
        # Names are the server's own, quoted by it.
        database.session.execute(f"VACUUM (SKIP_DATABASE_STATS) {', '.join(full)}".encode())
        # It may have corrected what pg_class says of a table; and if somebody else came in, it is seen here.
        _, cleaned = self._since_put_back(database)
        if cleaned is None:
            return "cleaning it wrote too much log"
        reason = schema_change(cleaned, database.shape, self._catalogs(database, cleaned))
        if reason is None and any(touched.rows_changed for touched in cleaned.local.values()):
            reason = "somebody came in while it was cleaned"
        return reason

    def _since_put_back(self, database: Database) -> tuple[Written, Footprint | None]:
        """What was written since the database was put back, but not by that; None if it was too much to read."""
        written = self._log.read(database.since, database.oid)
        if written.too_long:
            return written, None
        database.since, database.visits, database.seen = written.up_to, written.inside.visits, monotonic()
        return written, fold(written.records)


def _ms(started: float) -> float:
    return (perf_counter() - started) * 1e3
