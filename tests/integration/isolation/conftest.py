"""Runtimes without pytest's fixtures in between, and a plain connection that sees what is in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from tests.waiting import until

from dataflow.testing.dsn import Dsn
from dataflow.testing.events import Event
from dataflow.testing.runtime import Runtime

# The machine's own profile must not matter.
PLAIN = {"pool_size": 4, "pool_max_overflow": 2, "pool_timeout": 10, "timeout": 20}


class Watched(Runtime):
    """A runtime that keeps its events."""

    def __init__(self, **settings: object) -> None:
        self.events: list[Event] = []
        # A server that is named by its URL is taken only where the embedded one is not asked for.
        server = "auto" if "database_url" in settings else "embedded"
        given = {name: str(value) for name, value in {**PLAIN, "server": server, **settings}.items()}
        super().__init__(command_line=given, listener=self.events.append)

    @property
    def dsn(self) -> Dsn:
        return self.manager.server.dsn

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Over a connection that has nothing to do with the runtime, and commits."""
        return ask(self.dsn, statement, *values)

    def wait_only(self, seconds: float) -> None:
        """From now on, whoever finds all connections taken waits this long. Opening one may take the usual time,
        which the setting would limit too."""
        pool = self.manager.connection_pool
        assert pool is not None
        pool._timeout = seconds

    def backends(self) -> int:
        """Backends of ours in the test database, counted from outside."""
        ((count,),) = self.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'dataflow-tdd'"
        )
        return int(count)

    async def until_backends(self, most: int) -> None:
        """A backend notices the end of its connection a moment later."""
        await until(lambda: self.backends() <= most, f"at most {most} backends are left")


def ask(dsn: Dsn, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn.url(), autocommit=True, connect_timeout=10) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def new(**settings: object) -> Watched:
        made.append(Watched(**settings))
        return made[-1]

    yield new
    for runtime in made:
        await runtime.close()


@pytest_asyncio.fixture
async def tdd(make: Callable[..., Watched]) -> Watched:
    """A runtime whose database has a table `item (id int)`."""
    runtime = make()
    await runtime.manager.initialize()
    runtime.ask("CREATE TABLE item (id int)")
    return runtime


@pytest.fixture
def make_by_hand() -> Iterator[Callable[..., Watched]]:
    """For tests that bring event loops of their own."""
    made: list[Watched] = []

    def new(**settings: object) -> Watched:
        made.append(Watched(**settings))
        return made[-1]

    yield new
    for runtime in made:
        runtime.release()
