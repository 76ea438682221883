"""Fixtures in the places of pytest-django's: its tests find databases of ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from dataflow.testing.plugin import RUN
from dataflow.testing.plugin.django import DATABASES
from dataflow.testing.plugin.telling import telling
from dataflow.testing.plugin.warnings import TDDWarning

if TYPE_CHECKING:
    from dataflow.testing.layers.django import DjangoDatabases
    from dataflow.testing.runtime import Runtime
    from dataflow.testing.template.source import SchemaSource


@pytest.fixture(scope="session")
def tdd_schema(request: pytest.FixtureRequest, tdd_runtime: Runtime) -> SchemaSource:
    """How the tables and seed rows of the tests come to be: by the migrations of Django's default database, and
    after them as the options say.

    Override it in a conftest to add to them: return `Steps(DjangoMigrations(), PythonFunction(function))`.
    """
    from dataflow.testing.layers.django import django_schema

    with telling():
        return django_schema(tdd_runtime.settings, request.config.rootpath)


@pytest.fixture(scope="session")
def tdd_django(
    request: pytest.FixtureRequest, tdd_runtime: Runtime, tdd_schema: SchemaSource, django_test_environment: None
) -> Iterator[DjangoDatabases]:
    """Django's test databases; ``.lease()`` is that of a test that commits, for other drivers and processes."""
    from dataflow.testing.layers.django import DjangoDatabases

    databases = DjangoDatabases(tdd_runtime, tdd_schema, request.config.stash[RUN].test_id, _warn)
    with telling():
        databases.enter()
    request.config.stash[DATABASES] = databases
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def django_db_modify_db_settings_parallel_suffix() -> None:
    """Databases of ours have names of their own: workers need no suffix."""


@pytest.fixture(scope="session")
def django_db_setup(tdd_django: DjangoDatabases, django_db_setup: Any) -> None:
    """Django's test runner makes its databases, after it was told to have them here."""


def _warn(text: str) -> None:
    warnings.warn(TDDWarning(text), stacklevel=2)
