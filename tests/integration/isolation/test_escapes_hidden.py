"""What others commit while a rollback test runs, where it is hard to see or to undo."""

from __future__ import annotations

import time

import psycopg
import pytest
from tests.integration.isolation.test_escapes import Place, place

from dataflow.testing.errors import CommitEscaped

__all__ = ["place"]

pytestmark = pytest.mark.asyncio

ALWAYS = """
CREATE TABLE author (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE ledger (entry text);
CREATE FUNCTION enter() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.ledger VALUES (TG_OP); RETURN NULL; END $$;
CREATE TABLE watched (id int);
CREATE TRIGGER entered AFTER DELETE ON watched FOR EACH ROW EXECUTE FUNCTION enter();
ALTER TABLE watched ENABLE ALWAYS TRIGGER entered;
CREATE TABLE kept (id int);
CREATE RULE forever AS ON DELETE TO kept DO INSTEAD NOTHING;
ALTER TABLE kept ENABLE ALWAYS RULE forever;
CREATE DOMAIN email AS text;
"""


@pytest.mark.parametrize(
    ("statement", "change", "left"),
    [
        ("CREATE SCHEMA tenant", "pg_namespace", "SELECT to_regnamespace('tenant') IS NULL"),
        ("CREATE DOMAIN small AS int CHECK (VALUE < 9)", "pg_type", "SELECT to_regtype('small') IS NULL"),
    ],
)
async def test_what_has_no_row_in_pg_class(place, statement, change, left):
    escape = await place.escape(statement)
    assert change in str(escape.changes)
    assert place.runtime.ask(left) == [(True,)]


async def test_a_constraint_of_a_domain(make, tmp_path):
    place = await _with(make, tmp_path, ALWAYS)
    escape = await place.escape("ALTER DOMAIN email ADD CONSTRAINT has_at CHECK (VALUE ~ '@')")
    assert "pg_constraint" in str(escape.changes)
    assert place.runtime.ask("SELECT count(*) FROM pg_constraint WHERE conname = 'has_at'") == [(0,)]


async def test_what_is_temporary_is_no_escape(place):
    statement = "CREATE DOMAIN pg_temp.small AS int CHECK (VALUE < 9)"
    assert (await place.unharmed(statement)).unproven is None


@pytest.mark.parametrize("table", ["watched", "kept"])
async def test_rows_of_tables_whose_triggers_and_rules_always_fire(make, tmp_path, table):
    place = await _with(make, tmp_path, ALWAYS)
    escape = await place.escape(f"INSERT INTO {table} VALUES (1)")
    assert escape.changes == (f"public.{table}: 1 row added",)
    assert escape.put_back.startswith("the database was replaced")
    assert place.runtime.ask(f"SELECT count(*) FROM {table}") == [(0,)]
    assert place.runtime.ask("SELECT count(*) FROM ledger") == [(0,)]


async def test_a_table_that_somebody_has_locked_is_not_waited_for(place):
    before = place.picture()
    connection = psycopg.connect(place.runtime.dsn.url())
    context = await place.runtime.begin_test("locks")
    connection.execute("INSERT INTO author VALUES (3, 'Butler')")
    connection.commit()
    connection.execute("LOCK TABLE author")  # and is never ended
    began = time.monotonic()
    with pytest.raises(
        CommitEscaped, match=r"public\.author: rows were changed, and a session holds a lock on it"
    ):
        await place.runtime.end_test(context)
    assert time.monotonic() - began < 20
    assert place.picture() == before
    connection.close()


UNLOGGED = """
CREATE TABLE author (id int PRIMARY KEY, name text NOT NULL);
CREATE UNLOGGED TABLE seeded (key text);
INSERT INTO seeded VALUES ('a'), ('b');
"""


async def test_deleted_rows_of_unlogged_tables_are_not_seen_and_so_nothing_is_proven(make, tmp_path, tdd):
    place = await _with(make, tmp_path, UNLOGGED)
    released = await place.unharmed("DELETE FROM seeded WHERE key = 'a'")
    assert released.unproven is not None
    assert released.unproven.endswith(
        "whether rows of unlogged tables were deleted cannot be told: public.seeded"
    )
    context = await place.runtime.begin_test("a neighbour")
    tdd.ask("INSERT INTO item VALUES (1)")
    await place.runtime.end_test(context)
    assert place.runtime.events[-1].unproven is None


async def test_beside_unlogged_rows_the_database_is_replaced(make, tmp_path):
    place = await _with(make, tmp_path, UNLOGGED)
    await place.escape("BEGIN; DELETE FROM seeded; INSERT INTO author VALUES (3, 'Butler'); COMMIT")
    assert place.runtime.ask("SELECT count(*) FROM seeded") == [(2,)]


async def test_a_database_that_is_dropped_is_there_again(place):
    before = place.picture()
    name = place.runtime.dsn.database
    context = await place.runtime.begin_test("drops its database")
    with psycopg.connect(place.runtime.dsn.with_database("postgres").url(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    with pytest.raises(CommitEscaped, match=r"replaced by a fresh copy.*\n- the database itself was dropped"):
        await place.runtime.end_test(context)
    assert place.picture() == before
    assert (await place.unharmed()).unproven is None


async def test_a_prepared_transaction_with_savepoints_is_undone_as_a_whole(place):
    before = place.picture()
    with psycopg.connect(place.runtime.dsn.url(), autocommit=True) as connection:
        connection.execute("BEGIN; INSERT INTO author VALUES (3, 'Butler')")
        connection.execute("SAVEPOINT a; INSERT INTO author VALUES (4, 'Delany'); RELEASE a")
        try:
            connection.execute("PREPARE TRANSACTION 'parts'")
        except psycopg.errors.ObjectNotInPrerequisiteState:
            pytest.skip("the server has max_prepared_transactions = 0")
    place.runtime.ask("SELECT pg_current_xact_id()")  # a later one is over, so the server tells no parts
    context = await place.runtime.begin_test("two phases")
    place.runtime.ask("COMMIT PREPARED 'parts'")
    with pytest.raises(CommitEscaped, match=r"it was undone\n- public.author: 2 rows added"):
        await place.runtime.end_test(context)
    assert place.picture() == before


async def _with(make, tmp_path, more: str) -> Place:
    """A place whose schema has more."""
    schema = tmp_path / "more.sql"
    schema.write_text(more)
    runtime = make(schema_sql=schema)
    await runtime.manager.initialize()
    return Place(runtime)


async def test_one_whose_end_is_in_the_log_before_the_test_began_but_not_seen_by_it(place):
    """Its commit waits for the disk, or ends between what a test asks first and what it asks last."""
    before = place.picture()
    with psycopg.connect(place.runtime.dsn.url()) as connection:
        connection.execute("INSERT INTO author VALUES (3, 'Butler')")
        connection.execute("SAVEPOINT a; INSERT INTO book (author, title) VALUES (3, 'Kindred')")
        place.runtime.ask("SELECT pg_current_xact_id()")
        context = await place.runtime.begin_test("later")
        connection.commit()
        ((position,),) = place.runtime.ask("SELECT pg_current_wal_insert_lsn()::text")
        context.horizon = context.horizon._replace(position=position)
        with pytest.raises(CommitEscaped, match=r"it was undone") as raised:
            await place.runtime.end_test(context)
    assert "public.author: 1 row added" in str(raised.value)
    assert "public.book: 1 row added" in str(raised.value)
    assert place.picture() == before
