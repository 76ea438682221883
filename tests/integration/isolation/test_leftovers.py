"""What a test leaves in its session or in the driver, and whether the next one on its connection sees it."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import asyncpg
import pytest
from psycopg import sql
from tests.integration.isolation.conftest import ask

from dataflow.testing.isolation.context import TDDTestContext

pytestmark = pytest.mark.asyncio


@pytest.fixture
def tdd(make):
    """One connection, so that tests follow each other on it."""
    return make(pool_size=1)


async def pid_of(context) -> int:
    return await context.connection.fetchval("SELECT pg_backend_pid()")


# In this database: other workers' tests are on the same server.
HELD = (
    "SELECT count(*)::int FROM pg_locks JOIN pg_database AS d ON d.oid = database"
    " WHERE locktype = 'advisory' AND datname = current_database()"
)
ROLLED_BACK = {
    "rows": ("INSERT INTO item VALUES (1)", "SELECT count(*)::int FROM item", 0),
    "temporary table": ("CREATE TEMP TABLE mine (id int)", "SELECT to_regclass('mine') IS NULL", True),
    "table": ("CREATE TABLE mine (id int)", "SELECT to_regclass('mine') IS NULL", True),
    "temporary schema": ("CREATE TEMP TABLE mine (id int)", "SELECT pg_my_temp_schema()::int", 0),
    "setting": ("SET work_mem = '3MB'", "SELECT current_setting('work_mem') <> '3MB'", True),
    "set_config": ("SELECT set_config('work_mem', '3MB', false)", "SHOW work_mem", "4MB"),
    "search path": ("SET search_path = pg_catalog", "SHOW search_path", '"$user", public'),
    "time zone": ("SET TIME ZONE 'Asia/Tokyo'", "SHOW TimeZone", "UTC"),
    "role": ("SET ROLE {role}", "SELECT current_user = session_user", True),
    "local role": ("SET LOCAL ROLE {role}", "SELECT current_user = session_user", True),
    "isolation level": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SHOW default_transaction_isolation",
        "read committed",
    ),
    "read only": ("SET TRANSACTION READ ONLY", "SHOW transaction_read_only", "off"),
    "lock of the session": (
        "SELECT pg_advisory_lock(42), pg_advisory_lock_shared(43)",
        HELD,
        0,
    ),
    "listen": ("LISTEN somewhere", "SELECT count(*)::int FROM pg_listening_channels()", 0),
    "cursor": (
        "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*)::int FROM pg_cursors WHERE name = 'mine'",
        0,
    ),
    "deferred constraints": ("SET CONSTRAINTS ALL DEFERRED", "SELECT 1", 1),
    "type": ("CREATE TYPE mood AS ENUM ('fine')", "SELECT count(*)::int FROM pg_type WHERE typname = 'mood'", 0),
    "large object": ("SELECT lo_create(4711)", "SELECT count(*)::int FROM pg_largeobject_metadata", 0),
}


@pytest.mark.parametrize("what", ROLLED_BACK)
async def test_rolled_back(tdd, what):
    """The server undoes it, and the connection serves the next test."""
    leave, look, expected = ROLLED_BACK[what]
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    with a_role_of_our_own(tdd) if "{role}" in leave else nullcontext() as role:
        async with tdd.test_context("leaves") as context:
            await context.connection.execute(leave.format(role=role))
            pid = await pid_of(context)
        async with tdd.test_context("looks") as context:
            assert await pid_of(context) == pid
            assert await context.connection.fetchval(look) == expected


@contextmanager
def a_role_of_our_own(tdd):
    """One that the tests' role may become. Of a role that is there already, two workers would change the same
    row of the server's catalogue."""
    admin, name = tdd.manager.server.admin_dsn, sql.Identifier(f"of_{tdd.dsn.database}").as_string()
    ask(admin, f"CREATE ROLE {name} ROLE dataflow_test")
    try:
        yield name
    finally:
        ask(admin, f"DROP ROLE {name}")


async def test_the_number_that_a_test_drew_is_not_the_next_ones_current_one(tdd):
    await tdd.manager.initialize()
    tdd.ask("CREATE SEQUENCE numbers")
    async with tdd.test_context("draws") as context:
        await context.connection.fetchval("SELECT nextval('numbers')")
        pid = await pid_of(context)
    async with tdd.test_context("looks") as context:
        assert await pid_of(context) == pid
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
            await context.connection.fetchval("SELECT lastval()")


async def test_a_sequence_is_not_rolled_back(tdd):
    """PostgreSQL's own rule, and a documented limit."""
    await tdd.manager.initialize()
    tdd.ask("CREATE SEQUENCE numbers")
    seen = []
    for n in range(2):
        async with tdd.test_context(str(n)) as context:
            seen.append(await context.connection.fetchval("SELECT nextval('numbers')"))
    assert seen == [1, 2]


CLOSED = {
    "named statement": lambda c: c.prepare("SELECT 1", name="mine"),
    "prepare in a block": lambda c: c.execute("DO $$ BEGIN EXECUTE 'PREPARE mine AS SELECT 1'; END $$"),
    "deallocate in a block": lambda c: c.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"),
    "prepare": lambda c: c.execute("PREPARE mine AS SELECT 1"),
    "prepare among others": lambda c: c.execute("SELECT 1; PREPARE mine AS SELECT 1"),
    "prepare, prepared": lambda c: _run_prepared(c, "PREPARE mine AS SELECT 1"),
    "deallocate": lambda c: c.execute("DEALLOCATE ALL"),
    "listener": lambda c: c.add_listener("somewhere", lambda *_: None),
    "codec": lambda c: c.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda _: "mine"),
}


async def _run_prepared(connection, sql):
    await (await connection.prepare(sql)).fetch()


@pytest.mark.parametrize("what", CLOSED)
async def test_what_a_rollback_cannot_undo_costs_the_connection(tdd, what):
    async with tdd.test_context("leaves") as context:
        await CLOSED[what](context.connection)
        pid = await pid_of(context)
    async with tdd.test_context("looks") as context:
        assert await pid_of(context) != pid
        assert await context.connection.fetchval("SELECT 1") == 1
        assert (
            await context.connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE from_sql") == 0
        )
    await tdd.until_backends(1)


SHAPES = {
    "table": ("CREATE TABLE thing (a int)", "CREATE TABLE thing (a text, b int)"),
    "temporary table": ("CREATE TEMP TABLE thing (a int)", "CREATE TEMP TABLE thing (a text, b int)"),
    "select into": (
        "SELECT 1 AS a INTO thing WHERE false",
        "SELECT 'x' AS a, 1 AS b INTO TEMP thing WHERE false",
    ),
    "block": (
        "DO $$ BEGIN CREATE TABLE thing (a int); END $$",
        "DO 'BEGIN CREATE TABLE thing (a text, b int); END'",
    ),
    "view": ("CREATE VIEW thing AS SELECT 1 AS a", "CREATE VIEW thing AS SELECT 'x' AS a, 1 AS b"),
    "function": (
        "CREATE FUNCTION thing() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION thing() RETURNS TABLE (a text, b int) LANGUAGE sql AS $$SELECT 'x', 1$$",
    ),
}


@pytest.mark.parametrize("way", ["execute", "prepare"])
@pytest.mark.parametrize("what", SHAPES)
async def test_the_same_name_with_other_columns(tdd, what, way):
    """asyncpg keeps plans by the text of the statement; a plan of the test before must not be used."""
    shapes = SHAPES[what]
    look = "SELECT * FROM thing()" if what == "function" else "SELECT * FROM thing"
    pids = set()
    for shape, columns in ((shapes[0], 1), (shapes[1], 2), (shapes[0], 1)):
        async with tdd.test_context(shape) as context:
            if way == "prepare":
                await _run_prepared(context.connection, shape)
            else:
                await context.connection.execute(shape)
            for _ in range(7):  # the server makes a generic plan with the sixth
                await context.connection.fetch(look)
            assert len((await context.connection.prepare(look)).get_attributes()) == columns
            pids.add(await pid_of(context))
    assert len(pids) == 1


@pytest.mark.parametrize("kind", ["enum", "composite"])
async def test_a_type_of_the_same_name_with_other_content(tdd, kind):
    one, two = {
        "enum": (("ENUM ('a')", "'a'", "a"), ("ENUM ('b', 'c')", "'c'", "c")),
        "composite": (("(x int)", "ROW(1)", (1,)), ("(x text, y int)", "ROW('z', 2)", ("z", 2))),
    }[kind]
    for definition, value, expected in (one, two, one):
        async with tdd.test_context(definition) as context:
            await context.connection.execute(f"CREATE TYPE mine AS {definition}")
            assert await context.connection.fetchval(f"SELECT {value}::mine") == expected
            await context.connection.execute("CREATE TABLE holds (m mine)")
            await context.connection.execute("INSERT INTO holds VALUES ($1)", expected)
            assert await context.connection.fetchval("SELECT m FROM holds") == expected


OUTSIDE = {
    "temporary table": ("CREATE TEMP TABLE mine (id int)", "SELECT to_regclass('mine') IS NULL", True),
    "setting": ("SET search_path = pg_catalog", "SHOW search_path", '"$user", public'),
    "role": ("SET ROLE dataflow_test", "SELECT current_user = session_user", True),
    "lock": ("SELECT pg_advisory_lock(42)", HELD, 0),
    "listen": ("LISTEN somewhere", "SELECT count(*)::int FROM pg_listening_channels()", 0),
    "cursor": ("DECLARE mine CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*)::int FROM pg_cursors", 1),
}


@pytest.mark.parametrize("what", OUTSIDE)
@pytest.mark.parametrize("how", ["no transaction", "committed"])
async def test_what_really_happened_in_a_session_does_not_reach_the_next_test(tdd, what, how):
    """Without a test's transaction, or with one that was committed, nothing is rolled back."""
    leave, look, expected = OUTSIDE[what]
    context = TDDTestContext("leaves")
    connection = await tdd.manager.get_test_connection(context)
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    if how == "committed":
        await tdd.transactions.begin_test_transaction(connection, context)
    await connection.execute(leave)
    if how == "committed":
        await tdd.transactions.end_test_transaction(connection, context, rollback=False)
    await tdd.manager.cleanup_test_connection(context)
    async with tdd.test_context("looks") as context:
        assert await context.connection.fetchval(look) == expected
        assert await pid_of(context) == pid


async def test_a_transaction_left_open_outside_of_a_test_is_not_passed_on(tdd):
    context = TDDTestContext("begins by hand")
    connection = await tdd.manager.get_test_connection(context)
    await connection.execute("BEGIN")
    await tdd.manager.cleanup_test_connection(context)
    async with tdd.test_context("next") as context:
        await context.connection.execute("SELECT 1")
    await tdd.until_backends(1)


async def test_a_schema_changed_for_good_is_seen_by_the_next_test(tdd):
    context = TDDTestContext("migrates")
    connection = await tdd.manager.get_test_connection(context)
    await connection.execute("CREATE TABLE thing (a int)")
    await connection.fetch("SELECT * FROM thing")
    await tdd.manager.cleanup_test_connection(context)
    async with tdd.test_context("reads") as context:
        await context.connection.fetch("SELECT * FROM thing")
    context = TDDTestContext("migrates again")
    connection = await tdd.manager.get_test_connection(context)
    await connection.execute("ALTER TABLE thing ADD b int")
    await tdd.manager.cleanup_test_connection(context)
    async with tdd.test_context("reads") as context:
        await context.connection.fetch("SELECT * FROM thing")


async def test_reset_outside_of_a_test_is_that_of_asyncpg(tdd):
    context = TDDTestContext("resets")
    connection = await tdd.manager.get_test_connection(context)
    await connection.execute("SET work_mem = '3MB'")
    await connection.reset()
    assert await connection.fetchval("SHOW work_mem") != "3MB"
    await tdd.manager.cleanup_test_connection(context)


async def test_a_failure_in_a_test_is_not_the_next_ones(tdd):
    for _ in range(3):
        async with tdd.test_context("fails") as context:
            with pytest.raises(asyncpg.DivisionByZeroError):
                await context.connection.execute("BEGIN; SELECT 1/0")
            with pytest.raises(asyncpg.InFailedSQLTransactionError):
                await context.connection.execute("SELECT 1")
    assert tdd.manager.connection_pool.get_size() == 1
