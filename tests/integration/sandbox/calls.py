"""Programs of calls to psycopg, and what comes of one: what each call gave, or its error."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from hypothesis import strategies
from psycopg.pq import PipelineStatus
from tests.integration.sandbox.either import entered, got

_STATEMENTS = (
    ("SELECT * FROM t ORDER BY id", None),
    ("SELECT %s::int, %s::text", (1, "x")),
    ("INSERT INTO t VALUES (%s, %s)", (3, "three")),
    ("INSERT INTO t VALUES (%s, %s)", (1, "there already")),
    ("UPDATE t SET v = %s WHERE id = 2 RETURNING v", ("z",)),
    ("DELETE FROM t WHERE id = 3", None),
    ("SELECT 1/0", None),
    ("SELECT * FROM nowhere", None),
    ("INSERT INTO child VALUES (1, 99, 1)", None),  # refused when it is committed
    ("INSERT INTO child VALUES (2, 1, 2)", None),
    ("DELETE FROM child", None),
    ("INSERT INTO t VALUES (5, 'a'); SELECT 5", None),
    ("INSERT INTO t VALUES (6, 'a'); SELECT 1/0", None),
    ("SET LOCAL work_mem = '1MB'", None),
    ("SHOW work_mem", None),
    ("BEGIN", None),
    ("COMMIT", None),
    ("ROLLBACK", None),
    ("SAVEPOINT a", None),
    ("ROLLBACK TO a", None),
)


# psycopg 3.3.9 itself, where an error comes with the end of a pipeline; how, depends on time.
FAILED = "the driver failed"


class Call(NamedTuple):
    """:ivar name: of what is called. :ivar arguments: its own; of a block, the calls in it."""

    name: str
    arguments: tuple[Any, ...] = ()


_execute = strategies.builds(
    lambda statement, prepare: Call("execute", (*statement, prepare)),
    strategies.sampled_from(_STATEMENTS),
    strategies.sampled_from([None, None, True]),
)
_plain = strategies.sampled_from(
    [
        Call("commit"),
        Call("rollback"),
        Call("executemany", ("INSERT INTO t VALUES (%s, %s)", ((7, "a"), (8, "b")))),
        Call("executemany", ("INSERT INTO t VALUES (%s, %s)", ((9, "a"), (9, "b")))),
        Call("copy_in", ("COPY t FROM STDIN", ((10, "a"), (11, "b")))),
        Call("copy_in", ("COPY t FROM STDIN", ((12, "a"), (12, "b")))),
        Call("copy_out", ("COPY (SELECT * FROM t ORDER BY id) TO STDOUT",)),
        Call("server_cursor", ("SELECT generate_series(1, 5)",)),
        Call("set_autocommit", (True,)),
        Call("set_autocommit", (False,)),
    ]
)
# When an error in one is seen depends on when it comes, and so only what comes of all of it is compared.
_pipeline_call = strategies.builds(
    lambda statements: Call("pipeline", tuple(statements)),
    strategies.lists(strategies.sampled_from(_STATEMENTS), max_size=4),
)
_leaf = _execute | _execute | _plain | _pipeline_call


def _blocks(inner: strategies.SearchStrategy[Call]) -> strategies.SearchStrategy[Call]:
    return strategies.builds(
        lambda name, calls: Call(name, tuple(calls)),
        strategies.sampled_from(["transaction", "undone"]),
        strategies.lists(inner, max_size=4),
    )


_call = _leaf | _leaf | _blocks(_leaf | _blocks(_leaf))
programs = strategies.lists(_call, min_size=1, max_size=7)


def depends_on_time(program: list[Call]) -> bool:
    """What is seen of an error in a pipeline does."""
    return "pipeline" in repr(program)


async def run(connection: Any, program: list[Call]) -> list[Any]:
    """What a driver sees of it."""
    seen: list[Any] = []
    for call in program:
        try:
            await _do(connection, call, seen)
        except psycopg.Error as error:
            # Without what tells the names of prepared statements and savepoints.
            seen.append((call.name, type(error).__name__, error.sqlstate, error.diag.message_primary))
        except IndexError:
            seen.append((call.name, FAILED))
        seen.append(connection.info.transaction_status.name)
    return seen


async def _do(connection: Any, call: Call, seen: list[Any]) -> None:
    """:raises psycopg.Error: also out of the block that it is in."""
    given = await _METHODS[call.name](connection, call.arguments, seen)
    seen.append((call.name, given, connection.info.transaction_status.name))


async def _execute_one(connection: Any, arguments: Any, _seen: list[Any]) -> Any:
    sql, values, prepare = arguments
    cursor = await got(connection.execute(sql, values, prepare=prepare))
    return cursor.statusmessage, cursor.rowcount, await got(cursor.fetchall()) if cursor.description else None


async def _execute_many(connection: Any, arguments: Any, _seen: list[Any]) -> Any:
    cursor = connection.cursor()
    await got(cursor.executemany(*arguments))
    return cursor.rowcount


async def _copy_in(connection: Any, arguments: Any, _seen: list[Any]) -> Any:
    sql, rows = arguments
    cursor = connection.cursor()
    async with entered(cursor.copy(sql)) as copy:
        for row in rows:
            await got(copy.write_row(row))
    return cursor.rowcount


async def _copy_out(connection: Any, arguments: Any, _seen: list[Any]) -> Any:
    rows = []
    async with entered(connection.cursor().copy(*arguments)) as copy:
        while row := await got(copy.read_row()):
            rows.append(row)
    return rows


async def _server_cursor(connection: Any, arguments: Any, _seen: list[Any]) -> Any:
    async with entered(connection.cursor(name="of_the_server")) as cursor:
        await got(cursor.execute(*arguments))
        return await got(cursor.fetchmany(2)), await got(cursor.fetchall())


async def _block(connection: Any, calls: Any, seen: list[Any]) -> Any:
    async with entered(connection.transaction()):
        for call in calls:
            await _do(connection, call, seen)


async def _undone(connection: Any, calls: Any, seen: list[Any]) -> Any:
    async with entered(connection.transaction(force_rollback=True)):
        for call in calls:
            await _do(connection, call, seen)


async def _pipeline(connection: Any, statements: Any, seen: list[Any]) -> Any:
    try:
        async with entered(connection.pipeline()) as pipeline:
            cursors = [await got(connection.execute(*statement)) for statement in statements]
            await got(pipeline.sync())
            return [await got(each.fetchall()) if each.description else None for each in cursors]
    finally:
        if connection.pgconn.pipeline_status != PipelineStatus.OFF:  # whatever is done then waits for ever
            seen.append(FAILED)
            await got(connection.close())


async def _method(connection: Any, name: str, arguments: Any) -> Any:
    return await got(getattr(connection, name)(*arguments))


_METHODS: dict[str, Any] = {
    "execute": _execute_one,
    "executemany": _execute_many,
    "copy_in": _copy_in,
    "copy_out": _copy_out,
    "server_cursor": _server_cursor,
    "transaction": _block,
    "undone": _undone,
    "pipeline": _pipeline,
    **{
        name: lambda connection, arguments, _seen, name=name: _method(connection, name, arguments)
        for name in ("commit", "rollback", "set_autocommit")
    },
}
