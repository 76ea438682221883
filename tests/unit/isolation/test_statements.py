"""What a test's statements did, told without a server."""

from __future__ import annotations

from time import perf_counter

import pytest

from dataflow.testing.isolation.statements import SHOWN_LENGTH, StatementLog, shown


def run(log: StatementLog, *statements: str, failed: bool = False) -> StatementLog:
    for statement in statements:
        log.finished(log.started(statement), perf_counter() - 1, failed=failed)
    return log


@pytest.mark.parametrize(
    ("statements", "left"),
    [
        (["SAVEPOINT a", "SAVEPOINT b"], ["a", "b"]),
        (["SAVEPOINT a; SAVEPOINT b; SAVEPOINT c", "RELEASE b"], ["a"]),
        (["SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a"], ["a"]),
        (["SAVEPOINT a", "SAVEPOINT b", "SAVEPOINT a", "ROLLBACK TO a"], ["a", "b", "a"]),
        (["SAVEPOINT a", "SAVEPOINT a", "RELEASE a"], ["a"]),
        (["SAVEPOINT a", "ROLLBACK TO SAVEPOINT guard"], []),
        (["SAVEPOINT a", "ROLLBACK"], []),
        (["SAVEPOINT a", "ROLLBACK TO missing"], ["a"]),
        (["SAVEPOINT A", 'SAVEPOINT "A"', 'RELEASE "A"'], ["a"]),
    ],
)
def test_savepoints_are_followed(statements, left):
    assert run(StatementLog("guard"), *statements).savepoints == left


def test_a_statement_that_failed_moves_no_savepoint():
    assert run(StatementLog(), "SAVEPOINT a", failed=True).savepoints == []


def test_times_are_summed_by_kind():
    log = run(StatementLog(), "SELECT 1", "INSERT INTO t VALUES (1)", "CREATE TABLE t (id int)")
    assert log.count == 3
    assert 2 <= log.data_s < 3
    assert 1 <= log.schema_s < 2
    assert log.schema_changed
    assert not log.session_changed


def test_a_failed_statement_may_have_left_something_too():
    log = run(StatementLog(), "SELECT 1; PREPARE x AS SELECT 1; SELECT 1/0", failed=True)
    assert log.session_changed


def test_statements_are_shown_short_and_without_passwords():
    assert StatementLog().last_shown is None
    assert run(StatementLog(), "SELECT\n   1").last_shown == "SELECT 1"
    assert shown("ALTER ROLE x PASSWORD 's3cret'") == "ALTER ROLE x PASSWORD '***'"
    assert len(shown("SELECT " + "x" * 1000)) == SHOWN_LENGTH
    assert "s3cret" not in shown("x" * (SHOWN_LENGTH - 20) + " PASSWORD 's3cret'")
