"""The schema that the settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dataflow.testing.template.alembic import AlembicMigrations
from dataflow.testing.template.command import Command
from dataflow.testing.template.files import SqlFiles
from dataflow.testing.template.function import PythonFunction
from dataflow.testing.template.steps import EMPTY, Steps

if TYPE_CHECKING:
    from dataflow.testing.settings import Settings
    from dataflow.testing.template.source import SchemaSource


def configured_schema(settings: Settings, root: Path) -> SchemaSource:
    """First the command, then alembic, then the SQL files, then the function; `EMPTY` when nothing is set.

    :param root: what relative paths begin at, and where the command runs.
    """
    files = tuple(root / name for name in settings.schema_files)
    steps: list[SchemaSource] = []
    if settings.schema_command is not None:
        steps.append(Command(settings.schema_command, files, directory=root))
    if settings.schema_alembic is not None:
        variables = ("DATABASE_URL", *settings.database_env)
        steps.append(AlembicMigrations(root / settings.schema_alembic, variables=variables, files=files))
    if settings.schema_sql:
        steps.append(SqlFiles(*(root / name for name in settings.schema_sql)))
    if settings.schema_function is not None:
        steps.append(PythonFunction(settings.schema_function, files, rootdir=root))
    if not steps:
        return EMPTY
    return steps[0] if len(steps) == 1 else Steps(*steps)
