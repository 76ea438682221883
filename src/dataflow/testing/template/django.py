"""A schema from the migrations of a Django project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed
from dataflow.testing.masking import mask
from dataflow.testing.template import django_inputs, failure, inputs
from dataflow.testing.template.apart import run_apart
from dataflow.testing.template.django_address import pointed


class DjangoMigrations:
    """The migrations of all installed apps, run as Django's test runner does: with the tables of apps that have
    none, with what `post_migrate` adds (content types, permissions), and with the tables of database caches.

    They run in this process, in a thread of their own, so that settings which only the tests make hold for them,
    too. Django has to be set up.

    :param alias: of the database, in DATABASES. :param files: files, folders and patterns that data migrations
        read: a change of any makes the template stale, as one of the migrations does, of the project's modules
        that these import, of models and of the settings that Django's own apps follow.
    """

    def __init__(self, alias: str = "default", files: Sequence[Path | str] = ()) -> None:
        self._alias = alias
        self._files = tuple(Path(path).expanduser().absolute() for path in files)

    def fingerprint(self) -> str:
        """
        :raises SchemaFailed: Django is not set up, or has no such database; a file is not there.
        """
        _check(self._alias)
        files = inputs.named_contents(inputs.inputs(self._files))
        return inputs.fingerprint("django", *files, *django_inputs.parts(self._alias))

    def describe(self) -> str:
        return "Django's migrations" + (f" ({self._alias})" if self._alias != "default" else "")

    def apply(self, database: Dsn, limit_s: float) -> None:
        """
        :raises SchemaFailed: `from` what a migration raised. One that does not end is left alone in its thread.
        """
        from django.db import connections

        _check(self._alias)
        with pointed(connections.settings[self._alias], database):
            try:
                error = run_apart(self._migrate, limit_s, f"schema from {self.describe()}")
            except TimeoutError:
                raise _too_slow(self.describe(), limit_s) from None
        if error is not None:
            raise _failed(self._alias, error, database.password) from error

    def _migrate(self) -> None:
        from django.core.management import call_command
        from django.db import connections

        connection = connections[self._alias]  # of this thread
        # pytest-django, and Django's own test cases, let nobody connect where a test did not ask for a database.
        connection.ensure_connection = lambda: connection.connection is None and connection.connect()
        try:
            with _without_migrations(connection.settings_dict["TEST"].get("MIGRATE", True) is False):
                call_command("migrate", verbosity=0, interactive=False, database=self._alias, run_syncdb=True)
            call_command("createcachetable", database=self._alias, verbosity=0)
        finally:
            connection.close()
            if connection.settings_dict["OPTIONS"].get("pool"):
                connection.close_pool()
            connections.close_all()


@contextmanager
def _without_migrations(wanted: bool) -> Iterator[None]:
    """TEST["MIGRATE"] = False: the tables follow from the models alone."""
    if not wanted:
        yield
        return
    from django.apps import apps
    from django.conf import settings

    before = settings.MIGRATION_MODULES
    settings.MIGRATION_MODULES = {app.label: None for app in apps.get_app_configs()}
    try:
        yield
    finally:
        settings.MIGRATION_MODULES = before


def _check(alias: str) -> None:
    try:
        from django.apps import apps
        from django.conf import settings
    except ImportError as error:
        raise SchemaFailed(
            "Django's migrations cannot be run: Django cannot be loaded",
            cause="it is not installed: only the extra 'django' brings it along",
            remedy='pip install "dataflow-tdd[django]"',
        ) from error
    if not settings.configured or not apps.ready:
        raise SchemaFailed(
            "Django's migrations cannot be run: Django is not set up",
            cause="pytest-django is not active, or was not told where the settings are",
            remedy="name them: DJANGO_SETTINGS_MODULE in pytest's ini file or in the environment; without pytest "
            "call django.setup()",
        )
    from django.db import connections

    if alias not in connections or connections[alias].vendor != "postgresql":
        what = f"{alias!r} is no PostgreSQL database" if alias in connections else f"there is no {alias!r}"
        raise SchemaFailed(
            f"Django's migrations cannot be run: in DATABASES {what}",
            cause="another settings module is in force than you think, or its ENGINE is for another database",
            remedy='write DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql"}}',
        )


def _failed(alias: str, error: BaseException, password: str | None) -> SchemaFailed:
    said = mask(f"{type(error).__name__}: {error}".strip(), password)
    migration = _migration(error)
    doing = f"migration {migration}" if migration is not None else f"migrate --database {alias}"
    what = f"the schema could not be built: {doing} raised {said}{failure.raised_at(error)}"
    remedy = "correct it and run again; nothing half-built was kept"
    return failure.with_extension(what, failure.missing_extension(said), remedy)


def _migration(error: BaseException) -> str | None:
    """Which migration was under way: Django has it in a variable on the way to the error."""
    from django.db.migrations import Migration

    found: Any = None
    traceback = error.__traceback__
    while traceback is not None:
        for value in (traceback.tb_frame.f_locals.get(name) for name in ("migration", "self")):
            found = value if isinstance(value, Migration) else found
        traceback = traceback.tb_next
    return f"{found.app_label}.{found.name}" if found is not None else None


def _too_slow(name: str, limit_s: float) -> SchemaFailed:
    return SchemaFailed(
        f"the schema was not built within {limit_s:.3g} s: {name} were still running",
        cause="there are many, or one waits for something: a lock, an answer",
        remedy="allow more time; or squash them; or run them not at all: --no-migrations",
        option="tdd_schema_timeout, --tdd-schema-timeout",
    )
