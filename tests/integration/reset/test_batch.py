"""Several statements in one round trip: what comes back, and what the wait for it must not do."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import psycopg
import pytest
from tests.waiting import LIMIT_S

from dataflow.testing.dsn import Dsn
from dataflow.testing.reset.batch import send


class Interrupted(Exception):
    """What a handler of a signal raises, such as that of pytest-timeout."""


@pytest.fixture
def connection(admin_dsn: Dsn) -> Iterator[psycopg.Connection]:
    with psycopg.connect(admin_dsn.with_database("postgres").url(), autocommit=True) as connection:
        yield connection


def test_rows_are_those_of_all_queries_and_deleted_ones_are_counted_in_all(
    connection: psycopg.Connection,
) -> None:
    table = "CREATE TEMP TABLE t AS SELECT generate_series(1, 5) AS a"
    deleting = ["DELETE FROM t WHERE a < 3", "DELETE FROM t WHERE a = 3"]
    said = send(connection, [table, *deleting, "SELECT 0, 1", "SELECT a, NULL FROM t"])
    assert said == ([["0", "1"], ["4", None], ["5", None]], 3)


def test_what_the_server_refuses_is_an_error_and_the_rest_is_not_run(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.DatabaseError, match="division by zero"):
        send(connection, ["SELECT 1 / 0", "CREATE TEMP TABLE never ()"])
    assert send(connection, ["SELECT to_regclass('never')"]).rows == [[None]]


def test_a_server_that_goes_away_is_an_operational_error(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        send(connection, ["SELECT pg_terminate_backend(pg_backend_pid())"])
    assert connection.closed


def test_other_threads_go_on_while_it_waits(connection: psycopg.Connection) -> None:
    thread = threading.Thread(target=send, args=(connection, ["SELECT pg_sleep(0.5)"]))
    thread.start()
    while_it_waited = 0
    while thread.is_alive():
        time.sleep(0.01)
        while_it_waited += 1
    thread.join(LIMIT_S)
    assert while_it_waited > 5


def test_a_connection_whose_answer_was_not_awaited_is_closed(connection: psycopg.Connection) -> None:
    """Or the next question would be refused, and so would all that come after it."""

    def interrupt(*_: object) -> NoReturn:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    started = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            send(connection, ["SELECT pg_sleep(30)"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < LIMIT_S
    assert connection.closed
