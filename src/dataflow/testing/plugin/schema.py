"""Which tables a test that is rolled back finds: those of the `tdd_schema` nearest to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow.testing.errors import SchemaFailed
from dataflow.testing.plugin.isolation import ROLLBACK

if TYPE_CHECKING:
    import pytest

    from dataflow.testing.runtime import Runtime
    from dataflow.testing.template.source import SchemaSource

_FIXTURE = "tdd_schema"
_FINDS_TABLES = "_tdd_finds_tables"
_MAY_COMMIT = ("tdd_test_context", "tdd_psycopg")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def finds_tables(function: _Function) -> _Function:
    """Mark a fixture function that is not asynchronous; goes below ``pytest.fixture``."""
    setattr(function, _FINDS_TABLES, True)
    return function


def wants_tables(fixturedef: pytest.FixtureDef[Any]) -> bool:
    return hasattr(fixturedef.func, _FINDS_TABLES)


class Schemas:
    """Tests that commit get any schema. Those that are rolled back share a database, and so have one schema."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settled: SchemaSource | None = None
        self._known: set[Any] = set()  # definitions of the fixture that give the settled schema

    def prepare(self, fixture: str, request: pytest.FixtureRequest) -> None:
        """What one of our fixtures needs, outside of it, so that its time is that of the test alone.

        :raises SchemaFailed: rollback tests have another one already; or it could not be made.
        """
        runtime = self._runtime
        if fixture in _MAY_COMMIT and runtime.isolation != ROLLBACK:
            # The same that the test gets if it asks for both, with its variables in the environment.
            runtime.database_of_test = request.getfixturevalue("tdd_database")
        elif not runtime.databases.settled:
            self._settled = runtime.databases.schema = request.getfixturevalue(_FIXTURE)
            self._known = {_definition(request)}
            runtime.make_tables()
        elif (definition := _definition(request)) not in self._known:
            self._compare(request.getfixturevalue(_FIXTURE))
            self._known.add(definition)

    def _compare(self, schema: SchemaSource) -> None:
        if self._settled is None or schema.fingerprint() == self._settled.fingerprint():
            return
        raise SchemaFailed(
            f"a test that is rolled back asks for the schema {schema.describe()}, and earlier ones in this "
            f"process were given {self._settled.describe()}",
            cause=f"the fixture {_FIXTURE} is overridden in more than one place",
            remedy='mark this test tdd(isolation="database"), or ask for tdd_database: such tests get the schema '
            "nearest to them; or run these tests by themselves",
        )


def _definition(request: pytest.FixtureRequest) -> Any:
    """The definition of the fixture that the test would get."""
    found = request._fixturemanager.getfixturedefs(_FIXTURE, request._pyfuncitem)
    return found[-1] if found else None
