"""Django's test databases, in the places of those that Django's test runner would make.

Rollback tests (`TestCase`, `db`) work in a copy of the template that belongs to the process, in Django's own
transactions. Each that commits (`TransactionTestCase`, `transactional_db`) has a database lent to it, which is
put back afterwards from the write-ahead log; nothing is flushed. Django finds either by its settings, which are
changed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow.testing.databases.server import ROLLBACK
from dataflow.testing.errors import ContextError, SettingsError
from dataflow.testing.layers.django_cases import patched_cases
from dataflow.testing.layers.django_proof import Watch
from dataflow.testing.layers.django_sessions import Sessions, let_go, session_pids
from dataflow.testing.template.configured import configured_schema
from dataflow.testing.template.django import DjangoMigrations
from dataflow.testing.template.django_address import kept, point, put_back
from dataflow.testing.template.steps import EMPTY, Steps

if TYPE_CHECKING:
    from dataflow.testing.databases.of_process import Databases
    from dataflow.testing.lease.lease import DatabaseLease
    from dataflow.testing.runtime import Runtime
    from dataflow.testing.settings import Settings
    from dataflow.testing.template.source import SchemaSource

DEFAULT = "default"


def django_schema(settings: Settings, root: Path) -> SchemaSource:
    """The migrations, and after them what the settings ask for.

    :param root: what relative paths begin at.
    """
    migrations = DjangoMigrations(files=[root / name for name in settings.schema_files])
    more = configured_schema(settings, root)
    return migrations if more is EMPTY else Steps(migrations, more)


@dataclass
class _Place:
    """One database of Django's settings.

    :ivar rollback: where rollback tests work. :ivar aliases: all that lead there: itself, mirrors, and others
        with the same address. :ivar source: of further copies.
    """

    source: SchemaSource
    rollback: DatabaseLease
    aliases: list[str] = field(default_factory=list)


class DjangoDatabases:
    """Begins with `enter`; `close` leaves Django as it was.

    :param schema: of the alias "default"; others have their migrations.
    :param who: the test that runs, for reports. :param warn: is told what is probably a mistake.
    """

    def __init__(
        self,
        runtime: Runtime,
        schema: SchemaSource,
        who: Callable[[], str | None],
        warn: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._schema = schema
        self._who = who
        self._warn = warn
        self._places: dict[str, _Place] = {}
        self._held: dict[str, DatabaseLease] = {}
        self._before: dict[str, dict[str, Any]] = {}
        self._undo = ExitStack()
        self._settle = False
        self._sessions = Sessions(self._lease_named, self._stray)
        self._watch = Watch(runtime)

    def enter(self) -> None:
        """From now on Django's test runner makes its databases here.

        :raises SettingsError: none of them is PostgreSQL's.
        """
        from django.db import connections

        ours = [alias for alias in connections if connections[alias].vendor == "postgresql"]
        if not ours:
            raise _no_postgresql({alias: connections[alias].settings_dict["ENGINE"] for alias in connections})
        for alias in ours:
            connection = connections[alias]
            self._undo.callback(setattr, connection, "creation", connection.creation)
            connection.creation = _creation(type(connection.creation), self)(connection)
        self._undo.enter_context(patched_cases(self))
        self._undo.enter_context(self._sessions.watched())

    def close(self) -> None:
        """Idempotent. The databases are dropped with the others of this process."""
        try:
            self.end()
        finally:
            for alias in list(self._before):
                self.restore(alias)
            self._places.clear()
            self._undo.close()

    def lease(self, alias: str = DEFAULT) -> DatabaseLease:
        """The database of a test that commits, for code that is not Django's: another process or driver.

        :raises ContextError: no such test is running, or it did not ask for this database.
        """
        lease = self._held.get(self._primary(alias))
        if lease is None:
            raise ContextError(
                f"{self._who() or 'what runs now'} has no database {alias!r} of its own",
                cause="it is no test that commits, or its `databases` do not name this one",
                remedy="mark it django_db(transaction=True), or make it a TransactionTestCase; ask in the test",
            )
        return lease

    def make(self, alias: str) -> str:
        """The database of rollback tests; its name.

        :raises SchemaFailed: a migration failed. :raises ServerError: the server does not allow it.
        """
        source = self._schema if alias == DEFAULT else DjangoMigrations(alias)
        lease = self._databases.lend(source, ROLLBACK, fresh=True, ahead=False)
        self._places[alias] = _Place(source, lease)
        self._join(alias, alias)
        return lease.name

    def mirror(self, alias: str, of: dict[str, Any]) -> None:
        """Django takes an alias for another way to a database. :param of: the settings of that."""
        from django.db import connections

        made = (name for name in self._places if connections[name].settings_dict is of)
        if (primary := next(made, None)) is not None:  # or no test asks for either
            self._join(alias, primary)

    def restore(self, alias: str) -> None:
        """The alias leads where the project's settings say."""
        from django.db import connections

        let_go(alias)
        if (before := self._before.pop(alias, None)) is not None:
            put_back(connections.settings[alias], before)

    def settle_later(self) -> None:
        """Before the first test that commits: what was put into the databases by then is in its own, too."""
        self._settle = True

    def settle(self) -> None:
        if not self._settle:
            return
        self._settle = False
        self._sessions.close()
        for place in self._places.values():
            for alias in place.aliases:
                let_go(alias)
            place.source = self._databases.as_left(place.rollback)
            place.rollback = self._databases.lend(place.source, ROLLBACK, fresh=True, ahead=False)
            self._point(place, place.rollback)

    def begin(self, case: Any) -> None:
        """A class of tests that commit has one that begins; it gets databases of its own.

        :raises ServerError: there are none.
        """
        self.end()  # an earlier one may not have run
        self._sessions.close()  # they would go on where rolled back tests work
        test_id = self._who() or case.__qualname__
        aliases = case._databases_names(include_mirrors=True)
        self.settle()
        try:
            for primary in dict.fromkeys(self._primary(alias) for alias in aliases if self.has(alias)):
                place = self._places[primary]
                for alias in place.aliases:
                    let_go(alias)
                fresh = self._runtime.isolation == "fresh"
                lease = self._runtime.lend_database(test_id, source=place.source, fresh=fresh)
                self._held[primary] = lease
                self._point(place, lease)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Take back what a test that commits had. Idempotent.

        :raises BaseException: as the listener of the runtime does for sessions that were left.
        """
        self._renew()
        if not self._held:
            return
        held, self._held = self._held, {}
        with ExitStack() as stack:
            for lease in held.values():  # whatever goes wrong before
                stack.callback(self._runtime.take_back_database, lease)
            self._sessions.close()
            for primary in held:
                place = self._places[primary]
                for alias in place.aliases:
                    let_go(alias)
                self._point(place, place.rollback)
            _forget_rows()

    def watch(self) -> None:
        """A test that is rolled back begins."""
        self._watch.begin()

    def judge(self, case: Any) -> None:
        """It was rolled back.

        :raises CommitEscaped: somebody committed in a database of it meanwhile, and that is an error.
        """
        __tracebackhide__ = True
        primaries = {
            self._primary(alias) for alias in case._databases_names(include_mirrors=True) if self.has(alias)
        }
        databases = [self._places[primary].rollback.name for primary in primaries]
        aliases = [alias for primary in primaries for alias in self._places[primary].aliases]
        self._watch.end(self._who() or case.id(), databases, session_pids(aliases))

    def _renew(self) -> None:
        """Databases in which others committed what could not be undone are replaced when nobody works there."""
        for place in self._places.values():
            if place.rollback.name in self._watch.spoilt:
                self._sessions.close()
                for alias in place.aliases:
                    let_go(alias)
                self._databases.renew(place.rollback.name)
        self._watch.spoilt.clear()

    def has(self, alias: str) -> bool:
        """Whether an alias leads to a database of ours."""
        return alias in self._before

    def lends(self, alias: str) -> bool:
        """Whether a test that commits has this database for itself now."""
        return self.has(alias) and self._primary(alias) in self._held

    @property
    def _databases(self) -> Databases:
        return self._runtime.databases.on(self._runtime.server())

    def _join(self, alias: str, primary: str) -> None:
        from django.db import connections

        place = self._places[primary]
        self._before.setdefault(alias, kept(connections.settings[alias]))
        place.aliases.append(alias)
        let_go(alias)
        point(connections.settings[alias], place.rollback.dsn)

    def _primary(self, alias: str) -> str:
        return next((name for name, place in self._places.items() if alias in place.aliases), alias)

    def _point(self, place: _Place, lease: DatabaseLease) -> None:
        from django.db import connections

        for alias in place.aliases:
            point(connections.settings[alias], lease.dsn)

    def _lease_named(self, name: str) -> DatabaseLease | None:
        return next((lease for lease in self._held.values() if lease.name == name), None)

    def _stray(self, name: str, where: str) -> None:
        """Another thread opens a session. :param name: of the database."""
        test_id = self._who()
        if test_id is None or all(place.rollback.name != name for place in self._places.values()):
            return
        self._warn(
            f"{test_id} is rolled back, and opened a connection in another thread ({where}): that is not in the "
            "test's transaction, and sees nothing of it; what it commits is told at the end of the test, and "
            "undone where that can be proven; mark the test django_db(transaction=True), or make it a "
            "TransactionTestCase"
        )


def _creation(base: Any, databases: DjangoDatabases) -> Any:
    """What Django makes test databases with, as a class; ours come ready."""

    class Creation(base):  # type: ignore[misc]
        def create_test_db(self, *args: Any, **kwargs: Any) -> str:
            return databases.make(self.connection.alias)

        def destroy_test_db(self, *args: Any, **kwargs: Any) -> None:
            databases.restore(self.connection.alias)

        def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
            databases.mirror(self.connection.alias, primary_settings_dict)

        def serialize_db_to_string(self) -> str:
            return "[]"  # for serialized_rollback: no row is ever lost

    return Creation


def _forget_rows() -> None:
    """Django remembers rows of some tables beyond the test; after a flush it would not, either."""
    from django.apps import apps

    if apps.is_installed("django.contrib.contenttypes"):
        from django.contrib.contenttypes.models import ContentType

        ContentType.objects.clear_cache()


def _no_postgresql(engines: dict[str, str]) -> SettingsError:
    found = ", ".join(f"{alias} has {engine}" for alias, engine in engines.items())
    return SettingsError(
        (
            f"tdd_django is on, and no database of Django's settings is PostgreSQL's ({found}): "
            'write DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql"}}, or leave tdd_django off',
        )
    )
