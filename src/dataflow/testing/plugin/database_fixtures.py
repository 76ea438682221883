"""Fixtures for tests that really commit: the schema, and a database for one test. They need no event loop."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import pytest

from dataflow.testing.plugin.isolation import DATABASE, FRESH, ROLLBACK, isolation_of
from dataflow.testing.plugin.schema import finds_tables
from dataflow.testing.plugin.telling import telling
from dataflow.testing.runtime import runtime

if TYPE_CHECKING:
    from dataflow.testing.isolation.psycopg_tests import PsycopgContext
    from dataflow.testing.lease.lease import DatabaseLease
    from dataflow.testing.runtime import Runtime
    from dataflow.testing.template.source import SchemaSource


@pytest.fixture(scope="session")
def tdd_schema(request: pytest.FixtureRequest, tdd_runtime: Runtime) -> SchemaSource:
    """How the tables and seed rows of the tests come to be; by default as the options say.

    Override it in a conftest to say it in Python: return `SqlFiles`, `PythonFunction`, `AlembicMigrations`,
    `Command` or `Steps`.
    """
    with telling():
        tdd_runtime.databases.root = request.config.rootpath
        return tdd_runtime.databases.source


@pytest.fixture
def tdd_database(
    request: pytest.FixtureRequest, tdd_runtime: Runtime, tdd_schema: SchemaSource
) -> Iterator[DatabaseLease]:
    """A database of this test's own, with the schema's tables and seed rows. What it commits is undone after it.

    Any number of connections, processes and drivers may use ``.url``; ``await .connect()`` opens one of asyncpg.
    """
    isolation = isolation_of(request.node, DATABASE, DATABASE, FRESH)
    if tdd_runtime.databases.schema is None:
        tdd_runtime.databases.schema = tdd_schema  # rollback tests have the same
    with telling():
        lease = tdd_runtime.lend_database(request.node.nodeid, source=tdd_schema, fresh=isolation == FRESH)
    try:
        point_environment(request, tdd_runtime.settings.database_env, lease.url)
        yield lease
    finally:
        tdd_runtime.take_back_database(lease)


@pytest.fixture
@finds_tables
def tdd_psycopg() -> Iterator[PsycopgContext]:
    """For tests with psycopg: ``.connection`` is inside a transaction that is rolled back after the test.

    Marked ``tdd(isolation="database")`` it is a connection to the database of the test, and commits.
    """
    # Asking for `request` or another fixture would cost as much as the transaction.
    current = runtime()
    current.use()
    if current.isolation != ROLLBACK:
        yield from _committing(current)
        return
    context = current.psycopg_tests.begin(current.who() or "")
    yield context
    current.psycopg_tests.end(context)


def _committing(current: Runtime) -> Iterator[PsycopgContext]:
    from dataflow.testing.isolation.psycopg_tests import PsycopgContext

    database = current.database_of_test
    assert database is not None, "the run asks for it before this fixture"
    context = PsycopgContext(current.who() or "", database.connect_psycopg, database)
    yield context
    context.end()


def point_environment(request: pytest.FixtureRequest, names: Collection[str], url: str) -> None:
    """Variables of this process until the test is over. By pytest's own means: a test that sets them, too, would
    otherwise have its own clean-up bring ours back."""
    if names:
        monkeypatch = request.getfixturevalue("monkeypatch")
        for name in names:
            monkeypatch.setenv(name, url)
