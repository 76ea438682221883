"""`Databases`: from a schema source to a database for a test, and what is told when that comes back."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import closing
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from dataflow.testing.errors import SchemaFailed, ServerError, TemplateBusy
from dataflow.testing.events import DatabaseMethod, DatabaseReturned, Emit, TemplateUsed
from dataflow.testing.lease.backends import described
from dataflow.testing.lease.broker import Broker, Returned, Terms
from dataflow.testing.lease.connecting import connect
from dataflow.testing.lease.lease import DatabaseLease
from dataflow.testing.lease.strategy import Method, Strategy, choose, facts
from dataflow.testing.reset.explain import explain
from dataflow.testing.template.session import explained
from dataflow.testing.template.steps import EMPTY
from dataflow.testing.template.store import Template, TemplateStore

if TYPE_CHECKING:
    from dataflow.testing.dsn import Dsn
    from dataflow.testing.settings import Settings
    from dataflow.testing.template.source import SchemaSource

log = logging.getLogger("dataflow.testing")

# With leaks ignored nobody has to know whether a session would have ended by itself in a moment.
_HURRY_S = 0.02


class Databases:
    """What one process has on a server: the templates that it uses, and for each schema who lends its copies.

    Loops in several threads may ask at once: they are served one after the other.

    :param admin: maintenance database, and a role that may create databases. :param user: as whom tests enter.
    """

    def __init__(self, admin: Dsn, user: Dsn, settings: Settings, emit: Emit) -> None:
        self._admin = admin
        self._user = user
        self._settings = settings
        self._emit = emit
        self._pid = os.getpid()
        self._store: TemplateStore | None = None
        self._brokers: dict[str, Broker] = {}
        self._known: dict[int, tuple[SchemaSource, Broker]] = {}  # by the source's id
        self._lent: dict[DatabaseLease, tuple[Broker, float, bool]] = {}
        self._failed: dict[str, SchemaFailed | TemplateBusy] = {}
        self._one_at_a_time = threading.RLock()

    def strategy(self) -> Strategy:
        """How databases will be made ready for the next test.

        :raises CannotCreateDatabase: the role may not even have copies. :raises ServerError: it cannot be asked.
        """
        with closing(connect(self._admin)) as connection, explained("say what it allows"):
            return choose(facts(connection))

    def lend(
        self, source: SchemaSource, test_id: str, *, fresh: bool = False, ahead: bool = True
    ) -> DatabaseLease:
        """A database made from `source`, for one test.

        :param fresh: one that no test has used. :param ahead: see `Broker.lend`.

        :raises SchemaFailed: the schema could not be made. :raises ServerError: the server does not allow it.
        """
        if self._pid != os.getpid():
            raise _forked(test_id)
        with self._one_at_a_time:
            broker = self.broker(source)
            started = perf_counter()  # making the template is not the first test's fault
            lease = broker.lend(test_id, fresh=fresh, ahead=ahead)
            self._lent[lease] = broker, (perf_counter() - started) * 1e3, fresh
            return lease

    def take_back(self, lease: DatabaseLease) -> DatabaseReturned | None:
        """Make the database ready for the next test; None when it was taken back before, or is our parent's."""
        if self._pid != os.getpid():
            return None
        with self._one_at_a_time:
            broker, lent_ms, fresh = self._lent.pop(lease, (None, 0.0, False))
            returned = broker.take_back(lease) if broker is not None else None
        if broker is None or returned is None:
            return None
        event = self._event(lease, returned, lent_ms, fresh, broker.strategy.method)
        self._emit(event)
        return event

    def renew(self, name: str) -> bool:
        """Put a fresh copy in the place of a database that is lent, by its name; False if none is called so.

        :raises ServerError: it is not possible.
        """
        with self._one_at_a_time:
            for lease, (broker, _, _) in self._lent.items():
                if lease.name == name:
                    broker.renew(lease)
                    return True
        return False

    def broker(self, source: SchemaSource) -> Broker:
        """Who lends the databases of a schema; made at first need."""
        known = self._known.get(id(source))
        if known is not None:  # its files are looked at once in a run
            return known[1]
        key = source.fingerprint()
        broker = self._brokers.get(key)
        if broker is None:
            settings = self._settings
            terms = Terms(spares=settings.spares, limit_s=settings.schema_timeout)
            if settings.leaks == "ignore":
                terms = terms._replace(grace_s=_HURRY_S)
            broker = Broker(self._admin, self._user, partial(self._template, source), terms)
            if not self._brokers:
                self._emit(DatabaseMethod(str(broker.strategy)))
            self._brokers[key] = broker
        self._known[id(source)] = source, broker
        return broker

    def close(self) -> None:
        """Drop all databases of this process. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._one_at_a_time:
            for broker in self._brokers.values():
                broker.close()
            self._brokers.clear()
            self._known.clear()
            self._lent.clear()
            if self._store is not None:
                self._store.close()
                self._store = None

    def _template(self, source: SchemaSource) -> str | None:
        if source is EMPTY:
            return None
        if self._store is None:
            self._store = TemplateStore(self._admin, self._user)
        template = self._ensure(self._store, source)
        self._emit(TemplateUsed(source.describe(), template.name, template.built_ms))
        return template.name

    def _ensure(self, store: TemplateStore, source: SchemaSource) -> Template:
        """What failed is not tried, or waited for, again for each of a thousand tests: only when its files have
        changed."""
        key = source.fingerprint()
        if (error := self._failed.get(key)) is not None:
            first_line = error.what.partition("\n")[0]
            raise type(error)(f"{first_line} (more at the first test that needed it)", remedy=error.remedy)
        try:
            return store.ensure(source, self._settings.schema_timeout, say=log.warning)
        except (SchemaFailed, TemplateBusy) as failed:
            self._failed[key] = failed
            raise

    def _event(
        self, lease: DatabaseLease, returned: Returned, lent_ms: float, fresh: bool, method: Method
    ) -> DatabaseReturned:
        outcome = returned.outcome
        return DatabaseReturned(
            test_id=lease.test_id,
            lent_ms=lent_ms,
            ended_ms=returned.ended_ms,
            reset_ms=outcome.duration_ms,
            # Where each is replaced, there is nothing to tell of one.
            replaced=outcome.plan.replace if method is Method.LOG else None,
            fresh=fresh,
            leaked=tuple(described(backend, where) for backend, where in returned.leaked)
            + tuple(f"prepared transaction {name!r}, rolled back now" for name in returned.prepared),
            outside=outcome.cluster.others,
            explanation=tuple(explain(outcome, lease.name)) if self._settings.explain_reset else (),
        )


def _forked(test_id: str) -> ServerError:
    return ServerError(
        f"{test_id} runs in a forked child, and the databases are those of its parent",
        cause="a test called os.fork, and the child went on with the tests behind it",
        remedy="end the child with os._exit, whatever happens in it; or use multiprocessing or subprocess",
    )
