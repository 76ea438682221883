"""Whatever a test sends, nothing of it is in the database afterwards, and the next test works."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from dataflow.testing.errors import ConnectionLost, DatabaseNotClean, StaleContext, TransactionEnded

pytestmark = pytest.mark.asyncio

COMMITS = [
    "COMMIT",
    "commit;",
    "COMMIT WORK",
    "COMMIT AND CHAIN",
    "END",
    "End Transaction",
    "PREPARE TRANSACTION 'x'",
    "INSERT INTO item VALUES (2); COMMIT",
    "; ;COMMIT",
    "/* ROLLBACK */ COMMIT -- really",
    "/* a /* nested */ comment */ commit",
    "SELECT ';'; COMMIT",
    "SELECT $$;$$; COMMIT",
    "SELECT $a$ $$ ; $a$; COMMIT",
    'SELECT 1 AS ";"; COMMIT',
    "SELECT E'\\';'; COMMIT",
    "SELECT 1; -- the comment ends here\rCOMMIT",
    "SELECT 1 AS a\u00a0$$; COMMIT; --$$",
    "SELECT E'a'\n'b\\''; COMMIT; --'",
    "ROLLBACK TO SAVEPOINT {guard}; COMMIT",
    "ROLLBACK; COMMIT",
    "BEGIN; COMMIT",
]
ROLLBACKS = ["ROLLBACK", "rollback;", "ABORT", "ROLLBACK WORK", "ROLLBACK AND CHAIN", "/* x */ Rollback -- ;"]
# Ways to send a statement; each gets (connection, sql).
WAYS = {
    "execute": lambda connection, sql: connection.execute(sql),
    "fetch": lambda connection, sql: connection.fetch(sql),
    "fetchrow": lambda connection, sql: connection.fetchrow(sql),
    "fetchval": lambda connection, sql: connection.fetchval(sql),
    "executemany": lambda connection, sql: connection.executemany(sql, [()]),
}


async def by_prepare(connection, sql):
    await (await connection.prepare(sql)).fetch()


async def by_cursor(connection, sql):
    await (await connection.cursor(sql)).fetch(1)


async def by_iteration(connection, sql):
    async for _ in connection.cursor(sql):
        pass


WAYS |= {"prepare": by_prepare, "cursor": by_cursor, "iteration": by_iteration}


async def assert_clean(tdd):
    """Nothing is left, and a test can begin and end."""
    assert tdd.ask("SELECT id FROM item") == []
    async with tdd.test_context("the next") as context:
        assert await context.connection.fetchval("SELECT count(*) FROM item") == 0
        await context.connection.execute("INSERT INTO item VALUES (99)")
    assert tdd.ask("SELECT id FROM item") == []
    assert tdd.ask("SELECT gid FROM pg_prepared_xacts") == []


async def test_no_spelling_of_commit_gets_through(tdd):
    for words in COMMITS:
        async with tdd.test_context("commits") as context:
            sql = words.format(guard=context.savepoint_name)
            await context.connection.execute("INSERT INTO item VALUES (1)")
            with contextlib.suppress(asyncpg.PostgresError):
                await context.connection.execute(sql)
            assert await context.connection.fetchval("SELECT count(*) FROM item WHERE id = 1") == 1, words
        assert tdd.ask("SELECT id FROM item") == [], words
    await assert_clean(tdd)


@pytest.mark.parametrize("way", WAYS)
async def test_no_way_of_sending_a_commit_gets_through(tdd, way):
    for sql in ("COMMIT", "END"):
        async with tdd.test_context("commits") as context:
            connection = context.connection
            await connection.execute("BEGIN")
            await connection.execute("INSERT INTO item VALUES (1)")
            assert connection.is_in_transaction()
            try:
                await WAYS[way](connection, sql)
            except (
                asyncpg.NoActiveSQLTransactionError
            ):  # some versions of asyncpg would read on, some do not begin
                assert way in ("cursor", "iteration")
                continue
            assert not connection.is_in_transaction()
            assert await connection.fetchval("SELECT count(*) FROM item") == 1
    await assert_clean(tdd)


@pytest.mark.parametrize("way", ["execute", "fetch", "prepare"])
async def test_a_transaction_prepared_for_two_phases_is_refused(tdd, way):
    async with tdd.test_context("prepares") as context:
        await context.connection.execute("BEGIN; INSERT INTO item VALUES (1)")
        with pytest.raises(
            asyncpg.FeatureNotSupportedError, match="PREPARE TRANSACTION cannot be undone"
        ) as told:
            await WAYS[way](context.connection, "PREPARE TRANSACTION 'x'")
        assert 'tdd(isolation="database")' in told.value.hint
        await context.connection.execute("ROLLBACK")
        assert await context.connection.fetchval("SELECT count(*) FROM item") == 0
    await assert_clean(tdd)


@pytest.mark.parametrize("sql", [*ROLLBACKS, "ABORT; ABORT", "INSERT INTO item VALUES (2); ROLLBACK"])
async def test_a_rollback_undoes_the_transaction_that_was_begun_and_no_more(tdd, sql):
    async with tdd.test_context("rolls back") as context:
        connection = context.connection
        await connection.execute("INSERT INTO item VALUES (0)")
        for way in ("execute", *(("fetch", "executemany") if ";" not in sql.rstrip(" ;") else ())):
            await connection.execute("BEGIN")
            await connection.execute("INSERT INTO item VALUES (1)")
            await connection.execute("SAVEPOINT mine")
            await WAYS[way](connection, sql)
            if "CHAIN" in sql:
                assert connection.is_in_transaction()
                await connection.execute("ROLLBACK")
            assert not connection.is_in_transaction()
            assert await connection.fetch("SELECT id FROM item") == [(0,)]
            assert connection.log.savepoints == []
    await assert_clean(tdd)


async def test_rollback_helps_out_of_an_aborted_transaction(tdd):
    async with tdd.test_context("aborted") as context:
        with pytest.raises(asyncpg.UndefinedTableError):
            await context.connection.execute("SELECT * FROM missing")
        await context.connection.execute("ROLLBACK")
        assert await context.connection.fetchval("SELECT 1") == 1
    async with tdd.test_context("left aborted") as context:
        with pytest.raises(asyncpg.UndefinedTableError):
            await context.connection.execute("SELECT * FROM missing")
    await assert_clean(tdd)


async def test_the_servers_own_procedures_and_blocks_cannot_commit(tdd):
    tdd.ask("CREATE PROCEDURE committing() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'")
    for sql in ("DO $$ BEGIN COMMIT; END $$", "CALL committing()", "DO 'BEGIN ROLLBACK; END'"):
        async with tdd.test_context("block") as context:
            await context.connection.execute("INSERT INTO item VALUES (1)")
            with pytest.raises(asyncpg.InvalidTransactionTerminationError):
                await context.connection.execute(sql)
    await assert_clean(tdd)


async def test_words_in_strings_names_and_bodies_are_no_statements(tdd):
    async with tdd.test_context("harmless") as context:
        await context.connection.execute(
            "SELECT 'COMMIT', $$; COMMIT; $$, E'\\'; COMMIT; ', 1 AS \"; COMMIT; \" /* ; COMMIT; */ -- ; COMMIT"
        )
        await context.connection.execute(
            "CREATE FUNCTION commits() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 ELSE 2 END; END"
        )
        assert await context.connection.fetchval("SELECT commits()") == 1
        await context.connection.execute("CREATE TABLE commit_log (rollback int)")
    await assert_clean(tdd)


@pytest.mark.parametrize("sql", ["BEGIN", "START TRANSACTION", "BEGIN; INSERT INTO item VALUES (1)"])
async def test_a_raw_begin_does_no_harm(tdd, sql):
    async with tdd.test_context("begins") as context:
        await context.connection.execute(sql)
        await context.connection.execute("INSERT INTO item VALUES (1)")
    await assert_clean(tdd)


async def test_savepoints_around_the_transaction_are_out_of_reach(tdd):
    async with tdd.test_context("releases") as context:
        connection = context.connection
        await connection.execute("INSERT INTO item VALUES (1)")
        for sql in (f"RELEASE {context.savepoint_name}", "RELEASE dataflow_tdd", "ROLLBACK TO dataflow_tdd"):
            for way in ("execute", "prepare"):
                with pytest.raises(asyncpg.NoActiveSQLTransactionError, match="only be used in transaction"):
                    await WAYS[way](connection, sql)
                with pytest.raises(asyncpg.InvalidSavepointSpecificationError, match="does not exist"):
                    async with connection.transaction():
                        await WAYS[way](connection, sql)
                with pytest.raises(asyncpg.InvalidSavepointSpecificationError, match="does not exist"):
                    await connection.execute(f"BEGIN; {sql}")
                with pytest.raises(asyncpg.PostgresError):
                    await WAYS[way](connection, sql)
                await connection.execute("ROLLBACK")
        assert await connection.fetchval("SELECT count(*) FROM item") == 1
    await assert_clean(tdd)


async def test_reset_keeps_the_test_isolated(tdd):
    async with tdd.test_context("resets") as context:
        connection = context.connection
        await connection.execute("INSERT INTO item VALUES (1); SET work_mem = '1MB'")
        await connection.execute("BEGIN; INSERT INTO item VALUES (2)")
        await connection.reset()
        assert await connection.fetchval("SELECT count(*) FROM item") == 1
        assert await connection.fetchval("SHOW work_mem") != "1MB"
    await assert_clean(tdd)


async def test_transaction_blocks_nest_and_commit_nothing(tdd):
    async with tdd.test_context("nests") as context:
        connection = context.connection
        async with connection.transaction():
            await connection.execute("INSERT INTO item VALUES (1)")
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with connection.transaction():
                    await connection.execute("SELECT 1/0")
            await connection.execute("INSERT INTO item VALUES (2)")
        assert await connection.fetchval("SELECT count(*) FROM item") == 2
        left_open = connection.transaction()
        await left_open.start()
    await assert_clean(tdd)
    for use in (left_open.commit, left_open.rollback, connection.execute):
        with pytest.raises((asyncpg.InterfaceError, StaleContext, TypeError)):
            await use()


async def test_what_was_made_on_a_connection_does_not_reach_into_the_next_test(tdd):
    """Transaction blocks, prepared statements and cursors kept in a task that outlived its test."""
    async with tdd.test_context("first") as first:
        connection = first.connection
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        block = connection.transaction()
        await block.start()
        statement = await connection.prepare("INSERT INTO item VALUES (1)")
        cursor = await connection.cursor("SELECT generate_series(1, 10)")
    async with tdd.test_context("second") as second:
        assert await second.connection.fetchval("SELECT pg_backend_pid()") == pid
        for use in (block.commit, block.rollback, statement.fetch, lambda: cursor.fetch(1)):
            with pytest.raises(asyncpg.InterfaceError, match="released back"):
                await use()
        for use in (connection.execute, connection.fetch, connection.prepare):
            with pytest.raises(StaleContext, match="belonged to first, which is over"):
                await use("SELECT 1")
        for use in (connection.cursor, connection.transaction):
            with pytest.raises(StaleContext):
                use(*(["SELECT 1"] if use == connection.cursor else []))
        assert await second.connection.fetchval("SELECT count(*) FROM item") == 0


async def test_a_task_in_the_middle_of_a_statement_at_the_end_of_its_test(tdd):
    async with tdd.test_context("has a task") as context:
        await context.connection.execute("INSERT INTO item VALUES (1)")
        task = asyncio.create_task(context.connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.05)
    with pytest.raises((asyncpg.PostgresError, ConnectionLost), match=r"closed|canceling"):
        await asyncio.wait_for(task, 10)
    assert "still in use" in tdd.events[-1].problem
    assert tdd.events[-1].harmless
    await assert_clean(tdd)


async def test_getting_out_all_the_same_is_found_and_stops_the_others_where_it_cannot_be_undone(tdd):
    tdd.ask("INSERT INTO item VALUES (1)")
    context = await tdd.begin_test("escapes")
    await context.connection.execute("UPDATE item SET id = 2")
    await context.connection.physical.ask("COMMIT")
    with pytest.raises(TransactionEnded, match="escapes: it left the transaction"):
        await tdd.end_test(context)
    assert tdd.ask("SELECT id FROM item") == [(2,)]
    assert not tdd.events[-2].harmless
    assert "1 row updated" in str(tdd.events[-1])
    with pytest.raises(DatabaseNotClean, match="escapes"):
        await tdd.begin_test("later")
    assert tdd.manager.connection_pool.get_size() == tdd.manager.connection_pool.get_idle_size()


@pytest.mark.parametrize("how", ["close", "terminate"])
async def test_a_test_may_close_its_connection(tdd, how):
    async with tdd.test_context("closes") as context:
        await context.connection.execute("INSERT INTO item VALUES (1)")
        result = getattr(context.connection, how)()
        if result is not None:
            await result
        assert context.connection.is_closed()
        with pytest.raises(ConnectionLost, match=r"closes is closed(.|\n)*INSERT INTO item"):
            await context.connection.execute("SELECT 1")
    await assert_clean(tdd)
    await tdd.until_backends(1)


async def test_a_handle_is_taken_for_a_connection_of_asyncpg(tdd):
    async with tdd.test_context("typed") as context:
        assert isinstance(context.connection, asyncpg.Connection)


async def test_an_aborted_transaction_tells_which_statement_failed_first(tdd):
    async with tdd.test_context("aborts") as context:
        await context.connection.execute("BEGIN")
        for statement in ("SELECT 1/0", "SELECT 1", "SELECT 2"):
            with pytest.raises(asyncpg.PostgresError) as told:
                await context.connection.execute(statement)
    (note,) = told.value.__notes__
    assert "the transaction of aborts is aborted since this statement failed: SELECT 1/0" in note
    assert "async with connection.transaction()" in note


async def test_the_note_of_an_abort_names_no_statement_that_was_recovered_from(tdd):
    async with tdd.test_context("aborts", timeout=1.0) as context:
        connection = context.connection
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with connection.transaction():
                await connection.execute("SELECT 1/0")
        await connection.execute("BEGIN")
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.prepare("SELECT * FROM not_there")
        with pytest.raises(asyncpg.InFailedSQLTransactionError) as told:
            await connection.execute("SELECT 3")
    (note,) = told.value.__notes__
    assert "1/0" not in note


async def test_arguments_may_be_named_as_in_asyncpg(tdd):
    async with tdd.test_context() as context:
        connection = context.connection
        await connection.executemany(command="INSERT INTO item VALUES ($1)", args=[(1,), (2,)])
        assert await connection.fetchval(query="SELECT count(*) FROM item") == 2
