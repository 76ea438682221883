"""A server that somebody else runs, and what its role may do: what is told, what works, what is left behind."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import psycopg
import pytest
from tests.plugin.test_databases import SCHEMA

from dataflow.testing.dsn import Dsn
from dataflow.testing.server.dropping import drop_database
from dataflow.testing.template import databases

COMMITTING = """
    import pytest

    @pytest.mark.parametrize("n", range(4))
    def test_commits(tdd_database, n):
        with tdd_database.connect_psycopg() as connection:
            assert connection.execute("SELECT sum(cents) FROM account").fetchone() == (100,)
            connection.execute("DELETE FROM account")

    @pytest.mark.tdd(isolation="fresh")
    def test_fresh(tdd_database):
        with tdd_database.connect_psycopg() as connection:
            connection.execute("DROP TABLE entry")

    async def test_rolls_back(tdd_test_context):
        connection = tdd_test_context.connection
        assert await connection.fetchval("SELECT sum(cents) FROM account") == 100
        await connection.execute("DELETE FROM account")
"""
WITHOUT_SCHEMA = """
    import pytest

    def test_commits(tdd_database): pass

    async def test_rolls_back(tdd_test_context):
        await tdd_test_context.connection.execute("CREATE TABLE own (id int)")
        assert await tdd_test_context.connection.fetchval("SELECT to_regclass('account')") is None
"""


class Outsider:
    """A role on a server, and the database that its URL names.

    :param right: of the role, such as ``CREATEDB``.
    """

    def __init__(self, admin: psycopg.Connection, address: Dsn, right: str) -> None:
        self.role = f"outsider_{secrets.token_hex(4)}"
        self.database = f"{self.role}_test"
        self.version = admin.info.server_version
        self._admin = admin
        self._address = replace(address, user=self.role).with_database(self.database)
        self._execute(f"CREATE ROLE {self.role} LOGIN {right}")
        self._execute(f"CREATE DATABASE {self.database} OWNER {self.role}")

    @property
    def url(self) -> str:
        return self._address.url()

    def inside(self) -> set[str]:
        """What is in the URL's database that was not there at first."""
        with psycopg.connect(self._address.url()) as connection:
            rows = connection.execute(
                "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^(pg_|inform|public)'"
                " UNION ALL SELECT 'extension ' || extname || ' in ' || extnamespace::regnamespace"
                " FROM pg_extension WHERE extname <> 'plpgsql'"
                " UNION ALL SELECT 'relation ' || relname FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace"
            )
            return {name for (name,) in rows}

    def templates(self) -> list[str]:
        """Those whose users are known in the URL's database."""
        found = databases.databases(self._admin)
        return [each.name for each in found if each.note and each.note.lock_space == self.database]

    def others(self) -> list[str]:
        """Databases that the role owns besides the URL's and the templates."""
        rows = self._admin.execute(
            "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s", (self.role,)
        ).fetchall()
        return [name for (name,) in rows if name not in (self.database, *self.templates())]

    def leave(self) -> None:
        for name in (*self.templates(), *self.others(), self.database):
            drop_database(self._admin, name, self._enter)
        self._execute(f"DROP ROLE {self.role}")

    def _enter(self, database: str) -> psycopg.Connection:
        return psycopg.connect(self._admin.info.dsn, dbname=database, autocommit=True)

    def _execute(self, statement: str) -> None:
        self._admin.execute(statement.encode())


Enter = Callable[[str], Outsider]


@pytest.fixture
def enter(project, admin_dsn: Dsn) -> Iterator[Enter]:
    """`enter("CREATEDB")`: the project's URL names a role with that right."""
    project.ini(asyncio_mode="auto", tdd_schema_sql="schema.sql")
    project.file("schema.sql", SCHEMA)
    with ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(admin_dsn.url(), autocommit=True))

        def new(right: str) -> Outsider:
            outsider = Outsider(admin, admin_dsn, right)
            stack.callback(outsider.leave)
            project.database(outsider.url)
            return outsider

        yield new


BY_LOG = "put back from the write-ahead log"
BY_COPY = "replaced by a fresh copy after each test (reading the log and leaving triggers out take a superuser"
TOO_OLD = "replaced by a fresh copy after each test (the log can be read from PostgreSQL 16 on"


@pytest.mark.parametrize(
    ("right", "way", "left"),
    [
        ("SUPERUSER", BY_LOG, {"schema dataflow_tdd", "extension pg_walinspect in dataflow_tdd"}),
        ("CREATEDB", BY_COPY, set()),
    ],
)
def test_the_way_is_told_and_nothing_but_the_template_is_left(project, enter: Enter, right, way, left):
    outsider = enter(right)
    if outsider.version < 160_000:
        way, left = TOO_OLD, set()
    outcome = project.run(COMMITTING).assert_outcomes(passed=6)
    outcome.assert_says(
        f"dataflow-tdd: databases are {way}", "5 tests with a database", "1 asked for a fresh copy"
    )
    assert outcome.text.count("replaced by a fresh copy") == 2 * (way != BY_LOG)
    assert len(outsider.templates()) == 1
    assert outsider.others() == []
    assert outsider.inside() == left


@pytest.mark.parametrize("right", ["SUPERUSER", "CREATEDB"])
def test_workers_share_the_template(project, enter: Enter, right):
    outsider = enter(right)
    project.run(COMMITTING, "-p", "no:cacheprovider", "-n", "2", plain=False).assert_outcomes(passed=6)
    assert len(outsider.templates()) == 1
    assert outsider.others() == []


def test_where_the_log_may_not_be_read_nothing_is_claimed(project, enter: Enter):
    enter("CREATEDB")
    outcome = project.run(
        """
        import asyncpg

        async def test_alone(tdd_test_context):
            await tdd_test_context.connection.execute("DELETE FROM account")

        async def test_beside_others(tdd_test_context, tdd_database_url):
            other = await asyncpg.connect(tdd_database_url)
            await other.execute("CREATE TABLE beside (id int)")
            await other.close()
        """
    )
    outcome.assert_outcomes(passed=2).assert_says(
        "of 2 tests: rolled back",
        ": something was committed meanwhile, and where cannot be told: reading the log",
    )
    outcome.assert_silent_about("proven for 2 of 2")  # of the one alone, what neighbours committed cannot be told


def test_without_createdb_rollback_works_and_it_is_told_what_does_not(project, enter: Enter):
    outsider = enter("")
    outcome = project.run(WITHOUT_SCHEMA).assert_outcomes(passed=1, errors=1)
    why = f"role {outsider.role} may not create databases"
    outcome.assert_says(
        f"dataflow-tdd: no databases: {why}",
        f"CannotCreateDatabase: {why}",
        f'ALTER ROLE "{outsider.role}" CREATEDB',
        f"schema schema.sql; not made: {why}",
        f"tests whose work is rolled back have what is in {outsider.database}",
    )
    assert outsider.templates() == outsider.others() == []
    assert outsider.inside() == set()
