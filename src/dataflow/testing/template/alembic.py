"""A schema from alembic's migrations, run by alembic itself in a process of its own (`alembic_run`)."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed
from dataflow.testing.masking import mask
from dataflow.testing.missing import importing
from dataflow.testing.template import failure, inputs
from dataflow.testing.template.command import Command
from dataflow.testing.template.imported import all_imported
from dataflow.testing.template.importing import on_path
from dataflow.testing.template.inputs import shown
from dataflow.testing.template.session import connect

if TYPE_CHECKING:
    from alembic.config import Config

_PROGRAM = Path(__file__).with_name("alembic_run.py")
_URL = "DATAFLOW_TDD_ALEMBIC_URL"
_SYS_PATH = "DATAFLOW_TDD_SYS_PATH"
_TOML = "pyproject.toml"
# What an env.py has in it that works with an asynchronous engine.
_ASYNC = re.compile(r"async_engine_from_config|create_async_engine|AsyncEngine")
_DRIVER = re.compile(r"postgres(?:ql)?\+(\w+):")
_IS_EMPTY = """
    SELECT NOT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                       WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%')
"""


class AlembicMigrations:
    """All migrations up to `target`, as ``alembic upgrade heads`` applies them.

    env.py finds the database's URL by ``config.get_main_option("sqlalchemy.url")``, and in the environment
    under `variables`. It names the driver that ``sqlalchemy.url`` names in the ini file; else asyncpg for an
    env.py with an asynchronous engine, and psycopg for any other.

    :param config: alembic.ini, or a pyproject.toml with a table ``tool.alembic``; alembic runs in its folder.
        Relative paths are relative to the current directory of now.
    :param target: a revision, or ``heads``.
    :param driver: of the URL, such as ``psycopg2``, if it should be another one.
    :param variables: names of variables with the URL.
    :param files: files, folders and patterns that the migrations read, besides those in their own folders. A
        change of any makes the template stale; so does one of the configuration, of the folders with env.py and
        versions, and of the project's modules that these import.
    """

    def __init__(
        self,
        config: Path | str = "alembic.ini",
        target: str = "heads",
        *,
        driver: str | None = None,
        variables: Sequence[str] = ("DATABASE_URL",),
        files: Sequence[Path] = (),
    ) -> None:
        self._path = Path(config).expanduser().absolute()
        self._target = target
        self._given_driver = driver
        self._variables = tuple(variables)
        self._files = tuple(path.expanduser().absolute() for path in files)

    def fingerprint(self) -> str:
        """Configuration, target and driver, the files of the migrations, and the sources of what they import.

        :raises SchemaFailed: files are missing, or the configuration does not tell where the migrations are.
        :raises MissingLibrary: alembic is not installed.
        """
        config = self._config
        scripts, versions = self._script_folder, self._version_folders
        own = inputs.inputs((scripts, *versions))
        with on_path(self._path.parent):
            modules = all_imported((file.path.stem, file.path) for file in own if file.path.suffix == ".py")
        parts = (self._target, self._driver, json.dumps(dict(config.toml_alembic_config)), *self._variables)
        ini = inputs.inputs((self._ini,)) if self._ini is not None else ()
        files = (*ini, *dict.fromkeys(own), *modules, *inputs.inputs(self._files))
        return inputs.fingerprint("alembic", *(part.encode() for part in parts), *inputs.named_contents(files))

    def describe(self) -> str:
        return f"migrations of {shown(self._path)}, {self._target}"

    def apply(self, database: Dsn, limit_s: float) -> None:
        """
        :raises SchemaFailed: with the revision and the statement that failed; or it was another database that was
            migrated.
        """
        with tempfile.TemporaryDirectory(prefix="tdd-") as directory:
            report = Path(directory) / "report"
            try:
                _Upgrade(self, self._arguments(report)).apply(database, limit_s)
            except SchemaFailed:
                if told := _read(report):
                    raise _failed(self.describe(), told, database.password) from None
                raise
            if _read(report).get("heads") and _is_empty(database):
                raise self._elsewhere()

    def environment(self, database: Dsn) -> dict[str, str]:
        """Variables for alembic's process."""
        url = database.url(scheme=f"postgresql+{self._driver}")
        return dict.fromkeys((*self._variables, _URL), url) | {_SYS_PATH: json.dumps(sys.path)}

    def _arguments(self, report: Path) -> list[str]:
        config = self._config
        files = (config.config_file_name or "", config.toml_file_name or "")
        return [sys.executable, "-P", str(_PROGRAM), _URL, self._target, str(report), *map(str, files)]

    @cached_property
    def _config(self) -> Config:
        inputs.inputs((self._path,))  # says so if it is not there
        with importing("alembic"):
            from alembic.config import Config
        toml = self._path.with_name(_TOML)
        return Config(self._ini, toml_file=toml if toml.is_file() else None)

    @property
    def _ini(self) -> Path | None:
        ini = self._path if self._path.suffix != ".toml" else self._path.with_name("alembic.ini")
        return ini if ini.is_file() else None

    @cached_property
    def _script_folder(self) -> Path:
        location = self._config.get_alembic_option("script_location")
        if location is None:
            raise SchemaFailed(
                f"{shown(self._path)} has no script_location, which tells where the migrations are",
                cause="it is no configuration of alembic, or has no section [alembic] or [tool.alembic]",
                remedy="name alembic.ini, or the pyproject.toml with [tool.alembic]",
                option="tdd_schema_alembic, --tdd-schema-alembic",
            )
        return self._folder(location)

    @property
    def _version_folders(self) -> Iterator[Path]:
        """Those that are named, besides that below the scripts; alembic does not mind if one is empty."""
        for location in self._config.get_version_locations_list() or ():
            folder = self._folder(location)
            if any(folder.glob("*")):
                yield folder

    def _folder(self, location: str) -> Path:
        """As alembic reads it: a path, or ``package:path``; it runs in the folder of its configuration."""
        from alembic.util import coerce_resource_to_filename

        with on_path(self._path.parent):
            return self._path.parent / coerce_resource_to_filename(location)

    @cached_property
    def _driver(self) -> str:
        if self._given_driver is not None:
            return self._given_driver
        config = self._config
        named = config.file_config.get(config.config_ini_section, "sqlalchemy.url", raw=True, fallback="")
        if found := _DRIVER.match(named):
            return found[1]
        env = self._script_folder / "env.py"
        is_async = env.is_file() and _ASYNC.search(env.read_text(encoding="utf-8", errors="replace"))
        return "asyncpg" if is_async else "psycopg"

    def _elsewhere(self) -> SchemaFailed:
        variables = " or ".join(self._variables)
        return SchemaFailed(
            f"alembic migrated with {shown(self._path)}, and the new database is as empty as before",
            cause="env.py took the address of another database from somewhere else; that one may be migrated now",
            remedy='let env.py take config.get_main_option("sqlalchemy.url")'
            + (f", or the environment variable {variables}" if variables else ""),
            option="tdd_database_env, --tdd-database-env names more variables; of AlembicMigrations: variables",
        )


class _Upgrade(Command):
    """Alembic's process, run and ended as any command."""

    def __init__(self, migrations: AlembicMigrations, arguments: Sequence[str]) -> None:
        config = migrations._path
        super().__init__(shlex.join(arguments), [config], variable="", directory=config.parent)
        self._migrations = migrations

    def describe(self) -> str:
        return self._migrations.describe()

    def _environment(self, database: Dsn) -> dict[str, str]:
        return super()._environment(database) | self._migrations.environment(database)


def _read(report: Path) -> dict[str, Any]:
    """Nothing where the program could not write one."""
    return dict(json.loads(report.read_text())) if report.is_file() else {}


def _is_empty(database: Dsn) -> bool:
    with connect(database) as connection:
        return connection.execute(_IS_EMPTY).fetchone() == (True,)


def _failed(name: str, told: dict[str, Any], password: str | None) -> SchemaFailed:
    """:param told: the report of the program."""
    title = f" ({told['title']})" if told.get("title") else ""
    where = f"revision {told['revision']}{title}" if "revision" in told else name
    lines = [f"the schema could not be built: {where}: {told['error']}{failure.at(told['frames'])}"]
    for part in ("detail", "hint"):
        lines += [f"    {part}: {told[part]}"] if told[part] else []
    if told["statement"]:
        lines.append(f"    statement: {failure.shortened(told['statement'])}")
    remedy = "correct it and run again; nothing half-built was kept"
    extension = failure.missing_extension(told["error"])
    return failure.with_extension(mask("\n".join(lines), password), extension, remedy)
