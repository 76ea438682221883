"""Templates made by hand, brokers that lend copies of them, and the check that a copy is like its template."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from tests.exactness.picture import Painter
from tests.servers import server_of_its_own

from dataflow.testing.dsn import Dsn
from dataflow.testing.lease.broker import Broker, Returned, Terms
from dataflow.testing.lease.lease import DatabaseLease
from dataflow.testing.server.protocol import TEST_ROLE

_TERMS = Terms(spares=1)
_TOO_OLD = "the log can be read from PostgreSQL 16 on"
_LOOKING = "-c search_path=pg_catalog -c TimeZone=UTC"


def connect(dsn: Dsn, options: str = "") -> psycopg.Connection:
    return psycopg.connect(dsn.url(), autocommit=True, options=options)


class Place:
    """A template, and a broker that lends copies of it.

    :param schema: SQL, run by the role of the tests. :param by_superuser: SQL, run before that.
    """

    def __init__(self, admin: Dsn, schema: str, by_superuser: str = "", terms: Terms = _TERMS) -> None:
        self.admin = admin.with_database("postgres")
        self.user = Dsn(admin.host, admin.port, TEST_ROLE, admin.password)
        self.template = f"lease_test_{os.getpid()}_{secrets.token_hex(4)}"
        self.terms = terms
        with connect(self.admin) as connection:
            self.version = connection.info.server_version
        # It writes so little log that it can be read.
        self.strategy = "STRATEGY FILE_COPY" if self.version >= 150_000 else ""
        self._copy(self.template, "template0")
        for dsn, text in ((self.admin, by_superuser), (self.user, schema)):
            with connect(dsn.with_database(self.template)) as connection:
                connection.execute(text.encode())
        self._stack = ExitStack()
        self._painter: Painter | None = None
        self.broker = Broker(self.admin, self.user, lambda: self.template, terms)

    def ask_admin(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        with connect(self.admin.with_database(database)) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def databases(self) -> set[str]:
        """Those that were lent or are ready to be, of all processes."""
        rows = self.ask_admin("SELECT datname FROM pg_database WHERE datname ~ '^tdd_lease_'")
        return {name for (name,) in rows}

    @contextmanager
    def lent(self, *, fresh: bool = False) -> Iterator[DatabaseLease]:
        lease = self.broker.lend("a test", fresh=fresh)
        yield lease
        self.broker.take_back(lease)

    def after(self, *statements: str, superuser: bool = False) -> Returned:
        """What becomes of a database in which a test committed these, each by itself; the next one is right."""
        return self.after_work(lambda lease: self.run(lease, *statements, superuser=superuser))

    def run(self, lease: DatabaseLease, *statements: str, superuser: bool = False) -> None:
        dsn = self.admin.with_database(lease.name) if superuser else lease.dsn
        with connect(dsn) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def after_work(self, work: Callable[[DatabaseLease], object]) -> Returned:
        lease = self.broker.lend("a test")
        work(lease)
        returned = self.broker.take_back(lease)
        assert returned is not None
        with self.lent() as following:
            assert self.differences(following) == []
        return returned

    def differences(self, lease: DatabaseLease) -> list[str]:
        """What is not as in the template."""
        with connect(self.admin.with_database(lease.name), _LOOKING) as connection:
            return self.painter.differences(connection)

    @property
    def painter(self) -> Painter:
        if self._painter is None:
            pristine = f"{self.template}_pristine"
            self._copy(pristine, self.template)
            looking = self._stack.enter_context(connect(self.admin.with_database(pristine), _LOOKING))
            self._painter = Painter(looking)
        return self._painter

    def _copy(self, name: str, template: str) -> None:
        self.ask_admin(f"CREATE DATABASE {name} OWNER {TEST_ROLE} TEMPLATE {template} {self.strategy}")

    def close(self) -> None:
        self._stack.close()
        self.broker.close()
        for name in (self.template, f"{self.template}_pristine"):
            self.ask_admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


Make = Callable[..., Place]


@pytest.fixture(scope="session")
def admin_dsn() -> Iterator[Dsn]:
    """What others write to the log would count, too, and change the way that is taken."""
    with server_of_its_own() as dsn:
        yield dsn


@pytest.fixture
def make(admin_dsn: Dsn) -> Iterator[Make]:
    """`make(schema, by_superuser="", terms=…)`: a place of one's own."""
    yield from _making(admin_dsn)


@pytest.fixture(scope="module")
def make_for_module(admin_dsn: Dsn) -> Iterator[Make]:
    yield from _making(admin_dsn)


def _making(admin_dsn: Dsn) -> Iterator[Make]:
    made: list[Place] = []

    def new(*arguments: Any, **named: Any) -> Place:
        made.append(Place(admin_dsn, *arguments, **named))
        return made[-1]

    yield new
    for place in made:
        place.close()


SCHEMA = """
CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL, at timestamptz DEFAULT now());
INSERT INTO item (name) SELECT 'item ' || g FROM generate_series(1, 20) g;
CREATE TABLE empty (id int GENERATED ALWAYS AS IDENTITY, name text);
CREATE TABLE large (id int PRIMARY KEY, filler text);
INSERT INTO large SELECT g, repeat('x', 100) FROM generate_series(1, 5000) g;
"""


@pytest.fixture(scope="session")
def place(admin_dsn: Dsn) -> Iterator[Place]:
    """Tables `item` (20 rows), `empty` and `large` (5,000 rows). All tests share it: each leaves it in order."""
    place = Place(admin_dsn, SCHEMA)
    yield place
    place.close()


@pytest.fixture
def by_log(admin_dsn: Dsn) -> None:
    """Skips a test about putting databases back, on a server where they are replaced."""
    with connect(admin_dsn) as connection:
        if connection.info.server_version < 160_000:
            pytest.skip(_TOO_OLD)


BY_LOG = pytest.mark.usefixtures("by_log")


def in_place(returned: Returned) -> str:
    """The plan by which the database was put back; it was not replaced."""
    _skip_without_log(returned)
    assert returned.outcome.plan.replace is None, returned.outcome.plan
    return str(returned.outcome.plan)


def replaced(returned: Returned) -> str:
    """Why the database was replaced."""
    _skip_without_log(returned)
    assert returned.outcome.plan.replace is not None, returned.outcome.plan
    return returned.outcome.plan.replace


def _skip_without_log(returned: Returned) -> None:
    """On an older server the test ends here: it was seen that the next database is right."""
    if _TOO_OLD in (returned.outcome.plan.replace or ""):
        pytest.skip(_TOO_OLD)
