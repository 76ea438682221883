"""What others commit while a test runs whose work is rolled back: found, named, undone before the next test."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psycopg
import pytest
import pytest_asyncio
from tests.integration.isolation.conftest import Watched

from dataflow.testing.errors import CommitEscaped, TransactionEnded
from dataflow.testing.events import CommitEscapes, ContextReleased
from dataflow.testing.proof import witness

SCHEMA = """
CREATE TABLE author (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE book (id serial PRIMARY KEY, author int REFERENCES author, title text);
CREATE UNLOGGED TABLE cache (key text, value text);
INSERT INTO author VALUES (1, 'Le Guin'), (2, 'Lem');
INSERT INTO book (author, title) VALUES (1, 'The Dispossessed');
"""
PICTURE = """
SELECT (SELECT jsonb_agg(a ORDER BY id) FROM author a), (SELECT jsonb_agg(b ORDER BY id) FROM book b),
       (SELECT jsonb_agg(c ORDER BY key) FROM cache c),
       (SELECT array_agg(relname ORDER BY 1) FROM pg_class WHERE relnamespace = 'public'::regnamespace)
"""


class Place:
    """Rollback tests in a copy of a template, and what is in it."""

    def __init__(self, runtime: Watched) -> None:
        self.runtime = runtime

    async def escape(self, *statements: str, name: str = "a test") -> CommitEscapes:
        """Statements that somebody else commits while a test runs, and what is told of that."""
        context = await self.runtime.begin_test(name)
        await context.connection.execute("INSERT INTO author VALUES (50, 'of the test')")
        for statement in statements:
            self.runtime.ask(statement)
        with pytest.raises(CommitEscaped) as raised:
            await self.runtime.end_test(context)
        found = self.runtime.events[-1]
        assert isinstance(found, CommitEscapes)
        assert str(found) in str(raised.value)
        return found

    async def unharmed(self, *statements: str) -> ContextReleased:
        """The same, and nothing is left of them that another test could see."""
        context = await self.runtime.begin_test("unharmed")
        await context.connection.execute("INSERT INTO author VALUES (50, 'of the test')")
        for statement in statements:
            self.runtime.ask(statement)
        await self.runtime.end_test(context)
        released = self.runtime.events[-1]
        assert isinstance(released, ContextReleased)
        return released

    def picture(self) -> object:
        return self.runtime.ask(PICTURE)


@pytest_asyncio.fixture
async def place(make: Callable[..., Watched], tmp_path: Path) -> Place:
    schema = tmp_path / "schema.sql"
    schema.write_text(SCHEMA)
    runtime = make(schema_sql=schema)
    await runtime.manager.initialize()
    return Place(runtime)


pytestmark = pytest.mark.asyncio


async def test_added_rows_are_counted_by_table_and_undone(place):
    before = place.picture()
    escape = await place.escape(
        "INSERT INTO author VALUES (3, 'Butler'), (4, 'Delany')",
        "INSERT INTO book (author, title) VALUES (3, 'Kindred')",
        "UPDATE book SET title = 'Kindred, 1979' WHERE title = 'Kindred'",
    )
    assert set(escape.changes) == {"public.author: 2 rows added", "public.book: 1 row added"}
    assert (escape.test_id, escape.put_back, escape.stays) == ("a test", "it was undone", False)
    assert place.picture() == before
    assert (await place.unharmed()).unproven is None


async def test_the_error_says_what_to_do(place):
    context = await place.runtime.begin_test("the name of the test")
    place.runtime.ask("INSERT INTO author VALUES (3, 'Butler')")
    with pytest.raises(CommitEscaped) as raised:
        await place.runtime.end_test(context)
    text = str(raised.value)
    assert text.startswith(
        "the name of the test: something was committed in its database while it ran; it was undone\n"
    )
    assert "- public.author: 1 row added" in text
    assert 'mark the test tdd(isolation="database")' in text
    assert "--tdd-escapes=error|warn" in text


async def test_rows_out_of_line_and_in_bulk(place):
    before = place.picture()
    escape = await place.escape(
        "INSERT INTO book (author, title) SELECT 1, string_agg(md5(n::text), '') FROM generate_series(1, 3000) n",
        "INSERT INTO author SELECT n, 'author ' || n FROM generate_series(100, 1099) n",
    )
    assert set(escape.changes) == {"public.book: 1 row added", "public.author: 1000 rows added"}
    assert place.picture() == before


async def test_rows_that_came_with_copy(place):
    before = place.picture()
    context = await place.runtime.begin_test("copies")
    with psycopg.connect(place.runtime.dsn.url()) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY author FROM STDIN") as copy:
            for number in range(500):
                copy.write_row((1000 + number, "copied"))
    with pytest.raises(CommitEscaped, match=r"public.author: 500 rows added"):
        await place.runtime.end_test(context)
    assert place.picture() == before


@pytest.mark.parametrize(
    ("statement", "change"),
    [
        ("UPDATE author SET name = 'S. Lem' WHERE id = 2", "public.author: 1 row updated"),
        ("DELETE FROM book", "public.book: 1 row deleted"),
        ("TRUNCATE book", "the schema was changed: public.book"),
        (
            "CREATE TABLE shelf (id serial PRIMARY KEY)",
            "the schema was changed: public.shelf, public.shelf_id_seq",
        ),
        ("ALTER TABLE book ADD year int", "the schema was changed: public.book"),
        ("CREATE FUNCTION one() RETURNS int RETURN 1", "the schema was changed: pg_depend, pg_proc"),
        ("INSERT INTO cache VALUES ('a', 'b')", "public.cache (unlogged): 1 rows added or updated"),
        ("SELECT lo_from_bytea(0, 'large')", "the schema was changed: pg_largeobject, pg_largeobject_metadata"),
    ],
)
async def test_what_cannot_be_taken_out_again_replaces_the_database(place, statement, change):
    before = place.picture()
    escape = await place.escape(statement)
    assert change in escape.changes
    assert escape.put_back.startswith("the database was replaced by a fresh copy")
    assert place.picture() == before
    assert (await place.unharmed()).unproven is None


@pytest.mark.parametrize(
    "statements",
    [
        ("SELECT count(*) FROM author",),
        ("SELECT nextval('book_id_seq')",),
        ("BEGIN; INSERT INTO author VALUES (3, 'Butler'); ROLLBACK",),
        ("INSERT INTO author VALUES (3, 'Butler')", "DELETE FROM author WHERE id = 3"),
        ("CREATE TEMP TABLE draft (id serial PRIMARY KEY, text text); INSERT INTO draft VALUES (1, 'a')",),
        ("ANALYZE",),
        ("VACUUM author",),
        ("SELECT pg_current_xact_id()",),
        ("SELECT * FROM author FOR UPDATE",),
    ],
)
async def test_what_leaves_nothing_behind_is_no_escape(place, statements):
    before = place.picture()
    released = await place.unharmed(*statements)
    assert released.unproven is None
    assert place.picture() == before


async def test_a_temporary_table_whose_session_is_still_there(place):
    with psycopg.connect(place.runtime.dsn.url(), autocommit=True) as connection:
        context = await place.runtime.begin_test("temporary")
        connection.execute("CREATE TEMP TABLE draft (id serial PRIMARY KEY)")
        await place.runtime.end_test(context)


async def test_commits_in_other_databases_of_the_server_are_not_its(place, tdd):
    context = await place.runtime.begin_test("a neighbour")
    tdd.ask("INSERT INTO item SELECT generate_series(1, 100)")
    await place.runtime.end_test(context)
    assert place.runtime.events[-1].unproven is None


async def test_a_transaction_that_was_open_before_the_test_began(place):
    before = place.picture()
    with psycopg.connect(place.runtime.dsn.url()) as connection:
        connection.execute("INSERT INTO author VALUES (3, 'Butler')")
        context = await place.runtime.begin_test("later")
        connection.commit()
        with pytest.raises(CommitEscaped, match=r"public.author: 1 row added"):
            await place.runtime.end_test(context)
    assert place.picture() == before


async def test_one_open_before_with_savepoints_is_undone_as_a_whole(place):
    before = place.picture()
    with psycopg.connect(place.runtime.dsn.url()) as connection:
        connection.execute("INSERT INTO author VALUES (3, 'Butler')")
        connection.execute("SAVEPOINT a; INSERT INTO author VALUES (4, 'Delany')")
        place.runtime.ask("SELECT pg_current_xact_id()")  # a later one is over, so the server tells no parts
        context = await place.runtime.begin_test("later")
        connection.commit()
        with pytest.raises(CommitEscaped, match=r"it was undone\n- public.author: 2 rows added"):
            await place.runtime.end_test(context)
    assert place.picture() == before


async def test_one_open_before_that_wrote_elsewhere_proves_nothing_against_it(place, tdd):
    with psycopg.connect(tdd.dsn.url()) as connection:
        connection.execute("INSERT INTO item VALUES (1)")
        context = await place.runtime.begin_test("a neighbour")
        connection.commit()
        await place.runtime.end_test(context)
    assert place.runtime.events[-1].unproven is None


async def test_one_open_before_that_wrote_elsewhere_behind_a_savepoint_only(place, tdd):
    with psycopg.connect(tdd.dsn.url()) as connection:
        connection.execute("SAVEPOINT a; INSERT INTO item VALUES (1)")
        tdd.ask("SELECT pg_current_xact_id()")
        context = await place.runtime.begin_test("a neighbour")
        connection.commit()
        await place.runtime.end_test(context)
    assert place.runtime.events[-1].unproven is None


async def test_one_open_before_of_which_nothing_is_in_the_log_is_not_proven(place):
    with psycopg.connect(place.runtime.dsn.url()) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        context = await place.runtime.begin_test("later")
        connection.commit()
        await place.runtime.end_test(context)
    assert place.runtime.events[-1].unproven == witness.OPEN_BEFORE


async def test_a_prepared_transaction_that_is_committed(place):
    before = place.picture()
    context = await place.runtime.begin_test("two phases")
    try:
        place.runtime.ask("BEGIN; INSERT INTO author VALUES (3, 'Butler'); PREPARE TRANSACTION 'mine'")
    except psycopg.errors.ObjectNotInPrerequisiteState:
        await place.runtime.end_test(context)
        pytest.skip("the server has max_prepared_transactions = 0")
    place.runtime.ask("COMMIT PREPARED 'mine'")
    with pytest.raises(CommitEscaped, match=r"public.author: 1 row added"):
        await place.runtime.end_test(context)
    assert place.picture() == before


async def test_threads_and_processes_are_found(place):
    before = place.picture()
    url = place.runtime.dsn.url()
    context = await place.runtime.begin_test("has helpers")
    thread = threading.Thread(target=place.runtime.ask, args=("INSERT INTO author VALUES (3, 'a thread')",))
    thread.start()
    thread.join()
    program = "import psycopg, sys; c = psycopg.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
    arguments = [sys.executable, "-c", program, url, "INSERT INTO author VALUES (4, 'a process')"]
    subprocess.run(arguments, check=True, timeout=60)
    with pytest.raises(CommitEscaped, match=r"public.author: 2 rows added"):
        await place.runtime.end_test(context)
    assert place.picture() == before


async def test_the_session_that_did_it_is_named_with_its_statement_if_it_is_still_there(place):
    with psycopg.connect(place.runtime.dsn.url(), autocommit=True, application_name="the app") as connection:
        context = await place.runtime.begin_test("has a pool beside it")
        connection.execute("INSERT INTO author VALUES (3, 'secret'); ALTER ROLE CURRENT_USER PASSWORD 'hunter2'")
        with pytest.raises(CommitEscaped) as raised:
            await place.runtime.end_test(context)
        pid = connection.info.backend_pid
        connection.execute("ALTER ROLE CURRENT_USER PASSWORD NULL")
    assert f"- seen there: backend {pid} (the app), idle, " in str(raised.value)
    assert "last statement: INSERT INTO author VALUES (3, 'secret')" in str(raised.value)
    assert "hunter2" not in str(raised.value)


async def test_connections_of_ours_that_commit_are_named_as_well(place):
    context = await place.runtime.begin_test("takes one beside")
    pool = await place.runtime.manager.asyncpg_pool()
    await pool.execute("INSERT INTO author VALUES (3, 'Butler')")
    with pytest.raises(CommitEscaped, match=r"seen there: backend \d+ \(dataflow-tdd\), idle"):
        await place.runtime.end_test(context)


async def test_a_program_that_stays_finds_the_database_by_its_name_when_it_was_replaced(place):
    url = place.runtime.dsn.url()
    await place.escape("DELETE FROM book")
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM book") == 1
    await connection.close()


async def test_without_a_template_added_rows_are_undone_and_others_stay(tdd):
    context = await tdd.begin_test("adds")
    tdd.ask("INSERT INTO item VALUES (1)")
    with pytest.raises(CommitEscaped, match="it was undone"):
        await tdd.end_test(context)
    assert tdd.ask("SELECT id FROM item") == []
    tdd.ask("INSERT INTO item VALUES (7)")
    context = await tdd.begin_test("updates")
    tdd.ask("UPDATE item SET id = 8")
    with pytest.raises(
        CommitEscaped, match=r"it stays, and later tests may see it \(older rows .* there is no copy\)"
    ):
        await tdd.end_test(context)
    assert tdd.ask("SELECT id FROM item") == [(8,)]
    async with tdd.test_context("later"):
        pass
    assert tdd.events[-1].unproven is None


async def test_as_a_warning_the_test_ends_well(make):
    tdd = make(escapes="warn")
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    async with tdd.test_context("warns"):
        tdd.ask("INSERT INTO item VALUES (1)")
    assert isinstance(tdd.events[-1], CommitEscapes)
    assert tdd.ask("SELECT id FROM item") == []


async def test_what_the_test_itself_committed_by_getting_out_is_undone(place):
    before = place.picture()
    context = await place.runtime.begin_test("gets out")
    await context.connection.execute("INSERT INTO author VALUES (3, 'Butler')")
    await context.connection.physical.ask("COMMIT")
    with pytest.raises(TransactionEnded):
        await place.runtime.end_test(context)
    assert place.picture() == before
    assert (await place.unharmed()).unproven is None


async def test_the_connection_of_the_test_breaks_and_somebody_commits(place):
    before = place.picture()
    context = await place.runtime.begin_test("is cut off")
    pid = await context.connection.fetchval("SELECT pg_backend_pid()")
    place.runtime.ask("INSERT INTO author VALUES (3, 'Butler')")
    place.runtime.ask("SELECT pg_terminate_backend(%s, 5000)", pid)
    with pytest.raises(CommitEscaped, match=r"public.author: 1 row added"):
        await place.runtime.end_test(context)
    assert place.picture() == before


async def test_a_test_that_throws_prepared_statements_away_is_proven_all_the_same(place):
    for statement in ("DEALLOCATE ALL", "SELECT 1", "DISCARD ALL", "SELECT 1", "SELECT 1", "DEALLOCATE ALL"):
        async with place.runtime.test_context("deallocates") as context:
            await context.connection.execute(statement)
        assert place.runtime.events[-1].unproven is None
        await place.escape("INSERT INTO author VALUES (3, 'Butler')")


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_at_each_isolation_level(place, level):
    context = await place.runtime.begin_test("at a level", isolation_level=level)
    place.runtime.ask("INSERT INTO author VALUES (3, 'Butler')")
    with pytest.raises(CommitEscaped, match=r"public.author: 1 row added"):
        await place.runtime.end_test(context)


async def test_two_tests_at_a_time_are_both_named_and_our_own_undoing_is_not_held_against_them(place):
    one = await place.runtime.begin_test("one")
    other = await place.runtime.begin_test("the other")
    place.runtime.ask("INSERT INTO author VALUES (3, 'Butler')")
    late = await place.runtime.begin_test("began behind it")
    with pytest.raises(
        CommitEscaped, match=r"one, or one of those that ran beside it: the other, began behind it: something"
    ):
        await place.runtime.end_test(one)
    for test in (other, late):
        await place.runtime.end_test(test)
        assert place.runtime.events[-1].unproven is None


async def test_more_log_than_is_read_is_not_proven(place, tdd, monkeypatch):
    monkeypatch.setattr(witness, "MOST_BYTES", 100_000)
    context = await place.runtime.begin_test("long")
    tdd.ask("INSERT INTO item SELECT generate_series(1, 10000)")
    await place.runtime.end_test(context)
    assert "MB of log were written while it ran" in place.runtime.events[-1].unproven


async def test_in_a_forked_child_nothing_of_the_parent_is_touched(place):
    await place.escape("INSERT INTO author VALUES (3, 'Butler')")
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            place.runtime.release()
        os._exit(0)
    os.waitpid(pid, 0)
    await place.escape("INSERT INTO author VALUES (3, 'Butler')")
