"""`TDDTransactionManager`: the transaction of a test, its savepoints and its isolation level."""

from __future__ import annotations

import asyncpg
import pytest
import pytest_asyncio

from dataflow.testing.errors import SavepointGone, TransactionError
from dataflow.testing.isolation.context import ContextState, TDDTestContext

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def held(tdd):
    """A context with a connection, in no transaction."""
    context = TDDTestContext("held")
    await tdd.manager.get_test_connection(context)
    yield context
    await tdd.manager.cleanup_test_connection(context)


async def count(connection) -> int:
    return await connection.fetchval("SELECT count(*) FROM item")


async def test_the_guides_sequence_rolls_back_by_default(tdd, held):
    assert held.state is ContextState.CONNECTED
    await tdd.transactions.begin_test_transaction(held.connection, held)
    assert held.state is ContextState.IN_TRANSACTION
    assert not held.connection.is_in_transaction()  # as far as the code under test can tell
    await held.connection.execute("INSERT INTO item VALUES (1)")
    assert tdd.ask("SELECT id FROM item") == []
    await tdd.transactions.end_test_transaction(held.connection, held)
    assert held.state is ContextState.ENDED
    assert not held.connection.is_in_transaction()
    assert await count(held.connection) == 0
    await tdd.transactions.end_test_transaction(held.connection, held)


async def test_a_commit_that_is_asked_for(tdd, held):
    await tdd.transactions.begin_test_transaction(held.connection, held)
    await held.connection.execute("INSERT INTO item VALUES (1)")
    await tdd.transactions.end_test_transaction(held.connection, held, rollback=False)
    assert tdd.ask("SELECT id FROM item") == [(1,)]


async def test_a_context_can_begin_again(tdd, held):
    for _ in range(3):
        await tdd.transactions.begin_test_transaction(held.connection, held)
        await held.connection.execute("INSERT INTO item VALUES (1)")
        assert await count(held.connection) == 1
        await tdd.transactions.end_test_transaction(held.connection, held)


async def test_cleanup_ends_what_is_open(tdd):
    context = TDDTestContext("not ended")
    connection = await tdd.manager.get_test_connection(context)
    await tdd.transactions.begin_test_transaction(connection, context)
    await connection.execute("INSERT INTO item VALUES (1)")
    await tdd.manager.cleanup_test_connection(context)
    assert tdd.ask("SELECT id FROM item") == []
    assert tdd.manager.connection_pool.get_idle_size() == 1


async def test_wrong_order_is_told(tdd, held):
    with pytest.raises(TransactionError, match="held: no test transaction to end"):
        await tdd.transactions.end_test_transaction(held.connection, held)
    await tdd.transactions.begin_test_transaction(held.connection, held)
    with pytest.raises(TransactionError, match="held: its transaction is open already"):
        await tdd.transactions.begin_test_transaction(held.connection, held)
    plain = await asyncpg.connect(**tdd.dsn.asyncpg_arguments())
    with pytest.raises(TransactionError, match="needs the connection of a test, not Connection"):
        await tdd.transactions.begin_test_transaction(plain, TDDTestContext())
    await plain.close()


async def test_savepoints(tdd):
    async with tdd.test_context("points") as context:
        manager, connection = tdd.transactions, context.connection
        await connection.execute("INSERT INTO item VALUES (1)")
        one = await manager.create_savepoint(connection, context)
        await connection.execute("INSERT INTO item VALUES (2)")
        two = await manager.create_savepoint(connection, context, 'odd "name"; COMMIT')
        assert connection.log.savepoints == [one, two]
        await connection.execute("INSERT INTO item VALUES (3)")
        await manager.rollback_to_savepoint(connection, context, two)
        assert await count(connection) == 2
        await manager.release_savepoint(connection, context, two)
        await manager.rollback_to_savepoint(connection, context, one)
        assert await count(connection) == 1
        await manager.rollback_to_savepoint(connection, context)
        assert await count(connection) == 0
        assert connection.log.savepoints == []
    assert tdd.ask("SELECT id FROM item") == []


async def test_a_savepoint_that_is_gone_is_named_with_those_that_are_there(tdd):
    async with tdd.test_context("points") as context:
        manager, connection = tdd.transactions, context.connection
        kept = await manager.create_savepoint(connection, context, "kept")
        await manager.create_savepoint(connection, context, "gone")
        await manager.release_savepoint(connection, context, "gone")
        for action in (manager.rollback_to_savepoint, manager.release_savepoint):
            with pytest.raises(SavepointGone, match=f"'gone' .* open ones: {context.savepoint_name}, kept"):
                await action(connection, context, "gone")
            await manager.rollback_to_savepoint(connection, context, kept)
        await connection.execute("SELECT 1")


async def test_the_guard_cannot_be_released(tdd):
    async with tdd.test_context("points") as context:
        with pytest.raises(TransactionError, match="is the savepoint that guards the test"):
            await tdd.transactions.release_savepoint(context.connection, context, context.savepoint_name)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("READ COMMITTED", "read committed"),
        ("read_uncommitted", "read uncommitted"),
        ("repeatable read", "repeatable read"),
        ("SERIALIZABLE", "serializable"),
    ],
)
async def test_the_server_uses_the_isolation_level(tdd, level, shown):
    async with tdd.test_context("level", level) as context:
        assert await context.connection.fetchval("SHOW transaction_isolation") == shown
    async with tdd.test_context("the next") as context:
        assert await context.connection.fetchval("SHOW transaction_isolation") == "read committed"


async def test_repeatable_read_does_not_see_what_others_commit(make):
    tdd = make(escapes="warn")
    await tdd.manager.initialize()
    tdd.ask("CREATE TABLE item (id int)")
    seen = {}
    for level in ("READ COMMITTED", "REPEATABLE READ"):
        async with tdd.test_context("sees", level) as context:
            before = await count(context.connection)
            tdd.ask("INSERT INTO item VALUES (1)")
            seen[level] = await count(context.connection) - before
    assert seen == {"READ COMMITTED": 1, "REPEATABLE READ": 0}
