"""Fixtures that need no event loop. One fixture is one decision, so that a project can override just one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from dataflow.testing.plugin import RUN
from dataflow.testing.plugin.telling import telling

if TYPE_CHECKING:
    from dataflow.testing.recipes.schema_templates import SchemaTemplates
    from dataflow.testing.runtime import Runtime
    from dataflow.testing.settings import Settings
    from dataflow.testing.template.source import SchemaSource

GUIDE_THRESHOLD_MB = 10.0


@pytest.fixture(scope="session")
def tdd_runtime(request: pytest.FixtureRequest) -> Runtime:
    """The runtime of this run. Asking for it turns an unset TDD mode on; an explicit false skips the test."""
    runtime = request.config.stash[RUN].runtime
    with telling():
        runtime.use()
    return runtime


@pytest.fixture(scope="session")
def tdd_settings(tdd_runtime: Runtime) -> Settings:
    """The settings in force, each with its origin."""
    with telling():
        return tdd_runtime.settings


@pytest.fixture(scope="session")
def tdd_database_url(tdd_runtime: Runtime, tdd_schema: SchemaSource) -> str:
    """URL of the database of this process's tests; starts the server if need be.

    On the embedded server it is a new, empty database, one per xdist worker, dropped after the run. Create
    your tables in it from a session fixture, with any driver.
    """
    with telling():
        tdd_runtime.databases.schema = tdd_schema
        return tdd_runtime.database_url()


@pytest.fixture(scope="session")
def schema_templates(tdd_runtime: Runtime) -> SchemaTemplates:
    """Statements for temporary tables by name; register your own with ``register``."""
    from dataflow.testing.recipes.schema_templates import SchemaTemplates

    return SchemaTemplates()


@pytest.fixture
def memory_monitor(request: pytest.FixtureRequest, tdd_runtime: Runtime) -> Iterator[None]:
    """Warn when the test makes the process grow by more than ``tdd_memory_threshold`` MB (10 if unset)."""
    from dataflow.testing.plugin.memory import MemoryWatch

    threshold_mb = tdd_runtime.settings.memory_threshold
    watch = MemoryWatch(request.node.nodeid, threshold_mb or GUIDE_THRESHOLD_MB)
    yield
    watch.end()
