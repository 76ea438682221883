"""The databases of a process: who may ask at once, and what is done once only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import psycopg
import pytest

from dataflow.testing.databases.of_process import Databases
from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed, TemplateBusy
from dataflow.testing.events import DatabaseReturned, Event
from dataflow.testing.server.protocol import TEST_ROLE
from dataflow.testing.settings import Sources, resolve
from dataflow.testing.template.files import SqlFiles
from dataflow.testing.template.locks import Lock, Right
from dataflow.testing.template.naming import template_key

Make = Callable[..., Databases]


class Counted(SqlFiles):
    """Counts how often its files are read for their fingerprint."""

    read = 0

    def fingerprint(self) -> str:
        self.read += 1
        return super().fingerprint()


@pytest.fixture
def admin(admin_dsn: Dsn) -> Dsn:
    return admin_dsn.with_database("postgres")


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def make(admin: Dsn, events: list[Event]) -> Iterator[Make]:
    made: list[Databases] = []

    def new(**options: str) -> Databases:
        settings = resolve(Sources.of_process(options))
        made.append(Databases(admin, replace(admin, user=TEST_ROLE), settings, events.append))
        return made[-1]

    yield new
    for databases in made:
        databases.close()


@pytest.fixture
def source(tmp_path: Path) -> Counted:
    path = tmp_path / "schema.sql"
    path.write_text(f"-- {tmp_path}\nCREATE TABLE item (id serial PRIMARY KEY)")
    return Counted(path)


def insert(dsn: Dsn) -> None:
    with psycopg.connect(dsn.url()) as connection:
        assert connection.execute("INSERT INTO item DEFAULT VALUES RETURNING id").fetchone() == (1,)


def test_loops_in_several_threads_may_ask_at_once(make: Make, source: Counted, events: list[Event]) -> None:
    databases = make()

    def a_test(number: int) -> None:
        for _ in range(5):
            lease = databases.lend(source, f"test {number}")
            insert(lease.dsn)
            databases.take_back(lease)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(a_test, range(4)))
    returned = [event for event in events if isinstance(event, DatabaseReturned)]
    neighbours = "more than 4 MB of log were written meanwhile"  # by other tests on this server
    replaced = [event.replaced for event in returned]
    assert set(replaced) <= {None, neighbours}
    assert replaced.count(None) > 10
    assert [event.leaked for event in returned] == [()] * 20


def test_files_of_the_schema_are_not_read_for_each_test(make: Make, source: Counted) -> None:
    databases = make()
    databases.take_back(databases.lend(source, "the first"))
    read = source.read
    for _ in range(3):
        databases.take_back(databases.lend(source, "another"))
    assert source.read == read


def test_a_schema_that_fails_is_tried_once(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "schema.sql"
    path.write_text("SELECT pg_sleep(1); SELECT nothing")
    databases, source = make(), SqlFiles(path)
    for at_most_s in (30, 0.9):
        started = perf_counter()
        with pytest.raises(SchemaFailed, match='"nothing" does not exist'):
            databases.lend(source, "a test")
        assert perf_counter() - started < at_most_s


def test_who_builds_for_too_long_is_waited_for_once(make: Make, source: Counted, admin: Dsn) -> None:
    databases = make(schema_timeout="1")
    with psycopg.connect(admin.url(), autocommit=True) as builder:
        key = template_key(
            source.fingerprint(),
            server_version=builder.info.server_version,
            lock_space="postgres",
            owner=TEST_ROLE,
        )
        assert Lock(Right.BUILD, key).attempt(builder)
        for at_most_s in (30, 0.9):
            started = perf_counter()
            with pytest.raises(TemplateBusy, match="being built by"):
                databases.lend(source, "a test")
            assert perf_counter() - started < at_most_s
