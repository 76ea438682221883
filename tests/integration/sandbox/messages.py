"""Programs of messages of the protocol, also such as no library sends, and what the server says to one."""

from __future__ import annotations

import struct
from typing import NamedTuple

from hypothesis import strategies
from tests.integration.sandbox.raw import Raw

from dataflow.testing.dsn import Dsn
from dataflow.testing.sandbox import wire

_SQL = (
    "SELECT * FROM t ORDER BY id",
    "SELECT * FROM generate_series(1, 3)",
    "INSERT INTO t VALUES (3, 'three')",
    "INSERT INTO t VALUES (1, 'there already')",
    "UPDATE t SET v = 'z' WHERE id = 2 RETURNING v",
    "DELETE FROM t WHERE id = 3",
    "SELECT 1/0",
    "SELECT * FROM nowhere",
    "SET LOCAL work_mem = '1MB'",
    "SET work_mem = '2MB'",
    "SHOW work_mem",
    "SET TRANSACTION READ ONLY",
    "SET LOCAL TRANSACTION READ ONLY",
    """SET LOCAL "work_mem" = '3MB'""",
    """SET "Work_Mem" = '5MB'""",
    'SET LOCAL "no such" = 1',
    """SET LOCAL "app"."tenant" = '1'""",
    """SET LOCAL "app.tenant" = '2'""",
    "SHOW app.tenant",
    "BEGIN",
    "BEGIN READ ONLY",
    "COMMIT",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "DECLARE c CURSOR FOR SELECT * FROM t ORDER BY id",
    "FETCH c",
    "CLOSE c",
    "LOCK TABLE t",
    "SELECT set_config('work_mem', '3MB', true)",
    "RESET ALL",
    "PREPARE sql AS SELECT 1",
    "EXECUTE sql",
    "DEALLOCATE sql",
    "DEALLOCATE a",
    "DEALLOCATE ALL",
    "DISCARD ALL",
)
_DEFERRED = (
    "INSERT INTO child VALUES (1, 99, 1)",  # refused when it is committed
    "INSERT INTO child VALUES (2, 1, 2)",
    "INSERT INTO child VALUES (3, 1, 2)",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "DELETE FROM child",
)
_STRINGS = (
    "",
    "INSERT INTO t VALUES (5, 'a'); SELECT 5",
    "INSERT INTO t VALUES (6, 'a'); SELECT 1/0",
    "INSERT INTO t VALUES (6, 'a'); COMMIT; SELECT 1/0",
)


class Message(NamedTuple):
    """:ivar kind: its type, as the protocol calls it. :ivar names: of portals and statements."""

    kind: bytes
    names: tuple[bytes, ...] = ()
    sql: str = ""
    rows: int = 0

    @property
    def bytes(self) -> bytes:
        if self.kind == b"P":
            return wire.parse(self.names[0], self.sql)
        if self.kind == b"Q":
            return wire.query(self.sql)
        if self.kind == b"B":
            return wire.bind(*self.names)
        if self.kind == b"E":
            return wire.message(b"E", self.names[0] + b"\0" + struct.pack("!I", self.rows))
        if self.kind in (b"D", b"C"):
            return wire.message(self.kind, b"".join(self.names) + b"\0")
        return wire.message(self.kind)


Program = list[list[Message]]


def _prepared(name: bytes, sql: str) -> list[Message]:
    return [Message(b"C", (b"S", name)), Message(b"P", (name,), sql)]


def _executed(name: bytes, rows: int) -> list[Message]:
    return [Message(b"B", (b"", name)), Message(b"D", (b"P", b"")), Message(b"E", (b"",), rows=rows)]


# A statement, and a portal of it that is executed again and again.
_CURSOR = (
    _prepared(b"rows", "SELECT * FROM t ORDER BY id"),
    _prepared(b"rows", "SELECT * FROM generate_series(1, 3)"),
    _prepared(b"rows", "UPDATE t SET v = 'z' WHERE id = 2 RETURNING v"),
    [Message(b"B", (b"p", b"rows"))],
    [Message(b"D", (b"P", b"p"))],
    [Message(b"E", (b"p",), rows=1)],
    [Message(b"E", (b"p",))],
    [Message(b"C", (b"P", b"p"))],
)


def _run(*texts: str) -> list[Message]:
    return [message for sql in texts for message in (*_prepared(b"", sql), *_executed(b"", 0))]


_SYNC = Message(b"S")
_MISSING = Message(b"B", (b"p", b"missing"))
# Programs that once differed.
FOUND: tuple[Program, ...] = (
    # What is skipped behind an error was not closed, and not parsed.
    [[*_prepared(b"a", "COMMIT"), _MISSING, Message(b"C", (b"S", b"a")), _SYNC], [*_executed(b"a", 0), _SYNC]],
    [
        [*_prepared(b"a", "SHOW work_mem"), _SYNC],
        [_MISSING, *_prepared(b"a", "COMMIT"), _SYNC],
        [*_executed(b"a", 0), _SYNC],
    ],
    [
        [*_prepared(b"", "SHOW work_mem"), _SYNC],
        [Message(b"P", (b"",), "no SQL"), _SYNC],
        [*_executed(b"", 0), _SYNC],
    ],
    # A transaction that goes on up to the Sync.
    [[*_run("SET LOCAL work_mem = '1MB'", "SHOW work_mem"), _SYNC], [*_run("SHOW work_mem"), _SYNC]],
    [[*_run("SET TRANSACTION READ ONLY", "DELETE FROM t"), _SYNC], [*_run("DELETE FROM t WHERE id = 1"), _SYNC]],
    [[*_run("SET LOCAL TRANSACTION READ ONLY", "DELETE FROM t"), _SYNC]],
    # One that ends before.
    [[*_run("COMMIT", "SET LOCAL work_mem = '1MB'"), _SYNC]],
    [[*_CURSOR[0], *_CURSOR[3], *_run("COMMIT"), *_CURSOR[5], _SYNC]],
    [[*_run("DISCARD ALL", "DISCARD ALL"), _SYNC]],
    [
        [
            *_prepared(b"", "COMMIT"),
            Message(b"B", (b"p", b"")),
            Message(b"E", (b"p",)),
            Message(b"B", (b"p", b"")),
            _SYNC,
        ]
    ],
    # A portal that was executed.
    [[*_prepared(b"", "BEGIN"), *_executed(b"", 0), Message(b"E", (b"",)), _SYNC]],
)


def programs(*, deferred: bool) -> strategies.SearchStrategy[Program]:
    """:param deferred: there are deferred constraints, and so more to be done at the end of a transaction."""
    texts = _SQL + (_DEFERRED if deferred else ())
    sql = strategies.sampled_from(texts)
    names = strategies.sampled_from([b"", b"a", b"a", b"b"])
    rows = strategies.sampled_from([0, 0, 1])
    both = strategies.builds(
        lambda name, sql, rows: [*_prepared(name, sql), *_executed(name, rows)], names, sql, rows
    )
    part = strategies.one_of(
        both,
        both,
        strategies.sampled_from(_CURSOR),
        strategies.builds(_prepared, names, sql),
        strategies.builds(_executed, names, rows),
        strategies.builds(lambda name, sql: [Message(b"P", (name,), sql)], names, sql),
        strategies.builds(lambda name: [Message(b"D", (b"S", name))], names),
        strategies.builds(lambda name: [Message(b"C", (b"S", name))], names),
        strategies.just([Message(b"H")]),
    )
    exchange = strategies.lists(part, min_size=1, max_size=5).map(
        lambda parts: [*(message for part in parts for message in part), _SYNC]
    )
    query = strategies.sampled_from(texts + _STRINGS).map(lambda sql: [Message(b"Q", sql=sql)])
    return strategies.lists(exchange | exchange | query, min_size=1, max_size=8)


def run(dsn: Dsn, program: Program, *, one_by_one: bool = False) -> list[list[bytes]]:
    """What is said to each exchange. :param one_by_one: its messages, at different times."""
    raw = Raw(dsn)
    try:
        said = []
        for exchange in program:
            messages = [message.bytes for message in exchange]
            for data in messages if one_by_one else [b"".join(messages)]:
                raw.say(data)
            said.append([_told(message) for message in raw.messages(b"Z", 1)])
        return said
    finally:
        raw.close()


def _told(message: bytes) -> bytes:
    if message[:1] in b"EN":
        fields = wire.fields(message)
        if fields["C"] == "55000" and fields["M"].endswith('" cannot be run'):
            # In the sandbox such a portal is gone where its statement was replaced.
            fields |= {"C": "34000", "M": fields["M"].replace("cannot be run", "does not exist")}
        return b"%s %s %s" % (message[:1], fields["C"].encode(), fields["M"].encode())
    return message[:1] + message[5:]
