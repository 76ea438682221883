"""Programs of SQL, and what comes of one on a connection: everything that a driver can see."""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import monotonic
from typing import Any, Literal, NamedTuple

from hypothesis import strategies
from psycopg._connection_base import BaseConnection
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.waiting import Wait
from tests.waiting import LIMIT_S

STATEMENTS = (
    "BEGIN",
    "BEGIN",
    "START TRANSACTION",
    "BEGIN ISOLATION LEVEL READ COMMITTED",
    "BEGIN READ ONLY",
    "COMMIT",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "COMMIT AND CHAIN",
    "COMMIT AND NO CHAIN",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT a",
    "SAVEPOINT b",
    'SAVEPOINT "A b"',
    "ROLLBACK TO a",
    "ROLLBACK TO SAVEPOINT b",
    'ROLLBACK TO "A b"',
    "RELEASE a",
    "INSERT INTO t VALUES (3, 'x')",
    "INSERT INTO t VALUES (4, 'y')",
    "INSERT INTO t VALUES (1, 'there already')",
    "UPDATE t SET v = 'z' WHERE id = 2",
    "DELETE FROM t WHERE id = 3",
    "SELECT * FROM t ORDER BY id",
    "SELECT 1/0",
    "SELECT * FROM nowhere",
    "SELEKT",
    "VALUES (1), (2)",
    "",
    "-- nothing",
    "INSERT INTO child VALUES (1, 99, 1)",
    "INSERT INTO child VALUES (2, 1, 2)",
    "INSERT INTO child VALUES (3, 1, 2)",
    "DELETE FROM child",
    "SELECT count(*) FROM child",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET LOCAL work_mem = '1MB'",
    "SET work_mem = '2MB'",
    "RESET work_mem",
    "SHOW work_mem",
    "SELECT set_config('app.x', '1', true)",
    "SELECT set_config('app.x', '2', false)",
    "SELECT current_setting('app.x', true)",
    "SET TRANSACTION READ ONLY",
    "DECLARE c CURSOR FOR SELECT * FROM t ORDER BY id",
    "DECLARE h CURSOR WITH HOLD FOR SELECT 1",
    "FETCH 1 FROM c",
    "FETCH 1 FROM h",
    "CLOSE c",
    "CLOSE ALL",
    "LOCK TABLE t",
    "DISCARD ALL",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "DEALLOCATE ALL",
    "CREATE TEMP TABLE tt (a int)",
    "INSERT INTO tt VALUES (1)",
    "SELECT * FROM tt",
    "DROP TABLE tt",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_advisory_unlock_all()",
)


class Step(NamedTuple):
    """:param sent: how. What the unnamed statement is, a step before says."""

    sent: Literal["as a string", "with parameters", "parsed as the unnamed", "by running the unnamed"]
    sql: str


class Result(NamedTuple):
    """:param error: SQLSTATE, message and place, if it is one."""

    status: str
    tag: bytes | None
    rows: list[list[bytes | None]] | None
    error: tuple[bytes | None, ...] | None


def _of(*statements: str) -> list[Step]:
    return [Step("as a string", sql) for sql in statements]


def _unnamed(*statements: str) -> list[Step]:
    """The first is parsed, and run behind the others."""
    parsed, *others = statements
    between = [Step("with parameters", sql) for sql in others]
    return [Step("parsed as the unnamed", parsed), *between, Step("by running the unnamed", "")]


# The unnamed statement, from which others have taken the name or not; what a transaction that only reads leaves;
# settings of a transaction, and what is set beyond it.
FOUND = (
    _of(
        "BEGIN",
        "SET LOCAL work_mem = '1MB'",
        "SAVEPOINT a",
        "SET work_mem = '2MB'",
        "ROLLBACK TO a",
        "END",
        "SHOW work_mem",
    ),
    _of(
        "BEGIN",
        "SAVEPOINT a",
        "SET LOCAL work_mem = '1MB'",
        "ROLLBACK TO a",
        "SET work_mem = '2MB'",
        "END",
        "SHOW work_mem",
    ),
    _of(
        "SET work_mem = '3MB'", "BEGIN", "SET LOCAL work_mem = '1MB'", "RESET work_mem", "COMMIT", "SHOW work_mem"
    ),
    _of("SET work_mem = '3MB'", "BEGIN", "SET LOCAL work_mem = '1MB'", "RESET ALL", "COMMIT", "SHOW work_mem"),
    _of("BEGIN", "SET LOCAL transaction_read_only = on", "DELETE FROM child", "COMMIT", "DELETE FROM child"),
    _of("BEGIN", "SET LOCAL transaction_read_only = on", "COMMIT", "DELETE FROM child"),
    _of("BEGIN READ ONLY", "COMMIT AND CHAIN", "SELECT 1/0", "ROLLBACK AND CHAIN", "DELETE FROM child", "END"),
    _of("BEGIN READ ONLY", "SELECT 1/0", "ROLLBACK AND CHAIN", "DELETE FROM child", "END"),
    _of("BEGIN READ ONLY", "SET TRANSACTION READ WRITE", "INSERT INTO t VALUES (3, 'x')", "COMMIT"),
    _unnamed("INSERT INTO t VALUES (3, 'x')"),
    _unnamed("SELECT count(*) FROM t", "INSERT INTO t VALUES (3, 'x')"),
    [*_unnamed("SELECT count(*) FROM t"), Step("by running the unnamed", "")],
    [Step("parsed as the unnamed", "SELECT 2"), *_of("SELECT 1"), Step("by running the unnamed", "")],
    [Step("parsed as the unnamed", "SELECT 2"), Step("parsed as the unnamed", "SELEKT"), *_unnamed("SELEKT")],
    [*_of("BEGIN"), *_unnamed("COMMIT"), Step("by running the unnamed", "")],
    [*_of("BEGIN; SELECT 1/0"), Step("parsed as the unnamed", "BEGIN"), Step("parsed as the unnamed", "END")],
    [*_unnamed("BEGIN"), *_of("SELECT 1/0"), *_unnamed("ROLLBACK"), *_unnamed("SHOW work_mem")],
    _of(
        "SET TRANSACTION READ ONLY; SELECT set_config('app.x', '2', false)",
        "SELECT current_setting('app.x', true)",
    ),
    _of("BEGIN READ ONLY", "SET work_mem = '2MB'", "COMMIT", "SHOW work_mem", "INSERT INTO t VALUES (3, 'x')"),
    _of(
        "CREATE TEMP TABLE tt (a int)", "BEGIN READ ONLY", "INSERT INTO tt VALUES (1)", "END", "SELECT * FROM tt"
    ),
    *(
        _of("BEGIN", insert, "SET TRANSACTION READ ONLY", "COMMIT", "SELECT count(*) FROM child")
        for insert in ("INSERT INTO child VALUES (1, 99, 1)", "INSERT INTO child VALUES (2, 1, 2)")
    ),
    _of(
        "BEGIN READ ONLY", "SET work_mem = '2MB'", "COMMIT AND CHAIN", "SHOW work_mem", "DELETE FROM child", "END"
    ),
    _of("BEGIN READ ONLY", "SAVEPOINT a", "SET work_mem = '2MB'", "ROLLBACK TO a", "COMMIT", "SHOW work_mem"),
)

_one = strategies.sampled_from(STATEMENTS)
_several = strategies.lists(_one, min_size=2, max_size=4).map("; ".join)
_step = (
    strategies.builds(Step, strategies.sampled_from(["as a string", "with parameters"]), _one)
    | strategies.builds(Step, strategies.just("as a string"), _several)
    | strategies.builds(Step, strategies.just("parsed as the unnamed"), _one)
    | strategies.just(Step("by running the unnamed", ""))
)
programs = strategies.lists(_step, min_size=1, max_size=9)


def running(connection: BaseConnection[Any], program: list[Step]) -> Generator[Any, int, list[tuple[Any, ...]]]:
    """For each step: it, its results, the state of the transaction after it, and the notices.

    As psycopg's own: the connection waits for what it yields, so it may be synchronous or asynchronous.
    """
    notices: list[tuple[str | None, str | None]] = []
    connection.add_notice_handler(lambda said: notices.append((said.sqlstate, said.message_primary)))
    line = connection.pgconn
    seen = []
    for step in program:
        notices.clear()
        _SENDS[step.sent](line, step.sql.encode())
        results = []
        while (result := (yield from _answer(line))) is not None:
            results.append(_described(result))
        seen.append((step, results, line.transaction_status, tuple(notices)))
    return seen


_SENDS: dict[str, Callable[[Any, bytes], None]] = {
    "as a string": lambda line, sql: line.send_query(sql),
    "with parameters": lambda line, sql: line.send_query_params(sql, None),
    "parsed as the unnamed": lambda line, sql: line.send_prepare(b"", sql),
    "by running the unnamed": lambda line, _sql: line.send_query_prepared(b"", None),
}


def _answer(line: Any) -> Generator[Any, int, Any]:
    while line.flush():
        yield Wait.RW
    deadline = monotonic() + LIMIT_S
    while line.is_busy():
        assert monotonic() < deadline, "there is no answer"
        if (yield Wait.R):
            line.consume_input()
    return line.get_result()


def _described(result: Any) -> Result:
    rows = error = None
    if result.status == ExecStatus.TUPLES_OK:
        columns = range(result.nfields)
        rows = [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]
    elif result.status == ExecStatus.FATAL_ERROR:
        fields = DiagnosticField.SQLSTATE, DiagnosticField.MESSAGE_PRIMARY, DiagnosticField.STATEMENT_POSITION
        error = tuple(result.error_field(field) for field in fields)
    return Result(ExecStatus(result.status).name, result.command_status, rows, error)
