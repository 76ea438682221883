"""Programs of calls to asyncpg, and what comes of one: what each call gave, or its error."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import asyncpg
from hypothesis import strategies

_STATEMENTS: tuple[tuple[Any, ...], ...] = (
    ("SELECT * FROM t ORDER BY id",),
    ("SELECT $1::int + 1, $2::text", 1, "x"),
    ("SELECT $1::int", "no number"),  # which the driver refuses
    ("INSERT INTO t VALUES ($1, $2)", 3, "three"),
    ("INSERT INTO t VALUES ($1, $2)", 1, "there already"),
    ("UPDATE t SET v = $1 WHERE id = 2 RETURNING v", "z"),
    ("DELETE FROM t WHERE id = 3",),
    ("SELECT 1/0",),
    ("SELECT * FROM nowhere",),
    ("INSERT INTO child VALUES (1, 99, 1)",),  # refused when it is committed
    ("INSERT INTO child VALUES (2, 1, 2)",),
    ("DELETE FROM child",),
    ("INSERT INTO t VALUES (5, 'a'); SELECT 5",),
    ("INSERT INTO t VALUES (6, 'a'); SELECT 1/0",),
    ("INSERT INTO t VALUES (6, 'a'); COMMIT; SELECT 1/0",),
    ("SET LOCAL work_mem = '1MB'",),
    ("SET work_mem = '2MB'",),
    ("SHOW work_mem",),
    ("BEGIN",),
    ("BEGIN READ ONLY",),
    ("COMMIT",),
    ("COMMIT AND CHAIN",),
    ("ROLLBACK",),
    ("SAVEPOINT a",),
    ("ROLLBACK TO a",),
    ("RELEASE a",),
    ("CREATE TABLE made (id int)",),
    ("INSERT INTO made VALUES (1)",),
    ("DROP TABLE made",),
)


class Call(NamedTuple):
    """:ivar name: of what is called. :ivar arguments: its own; of a block, the calls in it."""

    name: str
    arguments: tuple[Any, ...] = ()


_statement = strategies.builds(
    Call,
    strategies.sampled_from(
        ["execute", "execute", "fetch", "fetchrow", "fetchval", "prepared", "prepared twice", "cursor", "moved"]
    ),
    strategies.sampled_from(_STATEMENTS),
)
_plain = strategies.sampled_from(
    [
        Call("executemany", ("INSERT INTO t VALUES ($1, $2)", [(7, "a"), (8, "b")])),
        Call("executemany", ("INSERT INTO t VALUES ($1, $2)", [(9, "a"), (9, "b")])),
        Call("fetchmany", ("INSERT INTO t VALUES ($1, $2) RETURNING id", [(14, "a"), (15, "b")])),
        Call("copy_records", ((10, "a"), (11, "b"))),
        Call("copy_records", ((12, "a"), (12, "b"))),
        Call("copy_records", ((13, "a"), ("no number", "b"))),
        Call("copied", ("SELECT * FROM t ORDER BY id",)),
        Call("copied", ("SELECT 1/0",)),
        Call("reset"),
        Call("reload_schema_state"),
    ]
)
_leaf = _statement | _statement | _plain


def _blocks(inner: strategies.SearchStrategy[Call]) -> strategies.SearchStrategy[Call]:
    return strategies.builds(
        lambda name, calls: Call(name, tuple(calls)),
        strategies.sampled_from(["transaction", "read only", "undone", "caught"]),
        strategies.lists(inner, max_size=4),
    )


_call = _leaf | _leaf | _blocks(_leaf | _blocks(_leaf))
programs = strategies.lists(_call, min_size=1, max_size=7)


FOUND = (
    # A savepoint of a transaction that is over.
    [Call("transaction", (Call("execute", ("SAVEPOINT a",)),)), Call("execute", ("ROLLBACK TO a",))],
    # A cursor where the transaction is over, of which asyncpg 0.30 does not know.
    [Call("transaction", (Call("execute", ("COMMIT",)), Call("cursor", ("SELECT * FROM t ORDER BY id",))))],
)
# The driver counts its savepoints and statements through.
_numbered = re.compile(r"_[0-9a-f]+__")


class _Stop(Exception):
    """The code under test has enough."""


async def run(connection: Any, program: list[Call]) -> list[Any]:
    """What code that uses asyncpg sees of it."""
    seen: list[Any] = []
    for call in program:
        await _caught(connection, (call,), seen)
    return seen


async def _caught(connection: Any, calls: Any, seen: list[Any]) -> None:
    """Code that goes on behind an error."""
    for call in calls:
        try:
            await _do(connection, call, seen)
        except asyncpg.PostgresError as error:
            seen.append((call.name, type(error).__name__, error.sqlstate, _numbered.sub("", str(error))))
        except (asyncpg.InterfaceError, ValueError, TypeError) as error:
            seen.append((call.name, type(error).__name__, _numbered.sub("", str(error))))
        seen.append(connection.is_in_transaction())


async def _do(connection: Any, call: Call, seen: list[Any]) -> None:
    """:raises asyncpg.PostgresError: also out of the block that it is in."""
    if (block := _BLOCKS.get(call.name)) is not None:
        await block(connection, call.arguments, seen)
        given = None
    else:
        given = await _METHODS[call.name](connection, *call.arguments)
    seen.append((call.name, given, connection.is_in_transaction()))


def _method(name: str) -> Any:
    async def method(connection: Any, *arguments: Any) -> Any:
        given = await getattr(connection, name)(*arguments)
        return [tuple(row) for row in given] if isinstance(given, list) else given

    return method


async def _prepared(connection: Any, sql: str, *values: Any) -> Any:
    statement = await connection.prepare(sql)
    rows = [tuple(row) for row in await statement.fetch(*values)]
    return rows, statement.get_statusmsg(), [kind.name for kind in statement.get_parameters()]


async def _prepared_twice(connection: Any, sql: str, *values: Any) -> Any:
    """What is between the parsing of the one and its execution is another one."""
    statement = await connection.prepare(sql)
    other = await connection.prepare("SELECT count(*) FROM t")
    return await other.fetchval(), await statement.fetchval(*values), await other.fetchval()


async def _cursor(connection: Any, sql: str, *values: Any) -> Any:
    return [tuple(row) async for row in connection.cursor(sql, *values, prefetch=1)]


async def _moved(connection: Any, sql: str, *values: Any) -> Any:
    cursor = await connection.cursor(sql, *values)
    skipped = await cursor.forward(1)
    return skipped, [tuple(row) for row in await cursor.fetch(5)], await cursor.fetchrow()


async def _copy_records(connection: Any, *rows: Any) -> Any:
    return await connection.copy_records_to_table("t", records=rows)


async def _copied(connection: Any, sql: str) -> Any:
    said: list[bytes] = []

    async def take(data: bytes) -> None:
        said.append(data)

    return await connection.copy_from_query(sql, output=take), b"".join(said)


async def _transaction(connection: Any, calls: Any, seen: list[Any]) -> None:
    async with connection.transaction():
        for call in calls:
            await _do(connection, call, seen)


async def _read_only(connection: Any, calls: Any, seen: list[Any]) -> None:
    async with connection.transaction(readonly=True):
        for call in calls:
            await _do(connection, call, seen)


async def _undone(connection: Any, calls: Any, seen: list[Any]) -> None:
    try:
        async with connection.transaction():
            for call in calls:
                await _do(connection, call, seen)
            raise _Stop
    except _Stop:
        pass


_BLOCKS: dict[str, Any] = {
    "transaction": _transaction,
    "read only": _read_only,
    "undone": _undone,
    "caught": _caught,
}
_METHODS: dict[str, Any] = {
    "prepared": _prepared,
    "prepared twice": _prepared_twice,
    "cursor": _cursor,
    "moved": _moved,
    "copy_records": _copy_records,
    "copied": _copied,
    **{
        name: _method(name)
        for name in (
            "execute",
            "executemany",
            "fetch",
            "fetchmany",
            "fetchrow",
            "fetchval",
            "reset",
            "reload_schema_state",
        )
    },
}
