"""Threads that share the transaction of a test with psycopg."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic, sleep

import psycopg
import pytest
from tests.waiting import LIMIT_S

from dataflow.testing.errors import StaleContext

pytestmark = pytest.mark.asyncio  # for the fixture `tdd`, which owns the database

COUNT = "SELECT count(*) FROM item"


@pytest.fixture
def place(tdd):
    return tdd.psycopg_tests


@pytest.fixture
def threads():
    with ThreadPoolExecutor(max_workers=8) as executor:
        yield executor


def value(connection, statement, *values):
    return connection.execute(statement, values or None).fetchone()[0]


async def test_they_take_turns(place, threads):
    def add(number):
        with context.connect(autocommit=True) as connection, connection.transaction():
            before = value(connection, COUNT)
            connection.execute("INSERT INTO item VALUES (%s)", (number,))
            sleep(0.001)
            assert value(connection, COUNT) == before + 1

    context = place.begin("threads")
    list(threads.map(add, range(40)))
    assert value(context.connection, COUNT) == 40
    place.end(context)


async def test_one_waits_while_another_one_is_answered(place, threads):
    """The one that carries leaves; those that wait go on without it."""
    context = place.begin("answers")
    connections = [context.connect(autocommit=True) for _ in range(4)]

    def work(connection, number):
        return [value(connection, "SELECT %s::int FROM pg_sleep(0.001)", each * number) for each in range(50)]

    answers = threads.map(work, connections, range(4))
    assert list(answers) == [[each * number for each in range(50)] for number in range(4)]
    place.end(context)


async def test_rows_in_bulk_of_several_threads(place, threads):
    context = place.begin("bulk")

    def work(number):
        with context.connect() as connection, connection.cursor() as cursor:
            with cursor.copy("COPY item FROM STDIN") as copy:
                for _ in range(20_000):
                    copy.write_row((number,))
            connection.commit()
            return len(connection.execute("SELECT id FROM item WHERE id = %s", (number,)).fetchall())

    assert list(threads.map(work, range(4))) == [20_000] * 4
    place.end(context)


async def test_who_waits_goes_on_when_it_is_its_turn(place, threads):
    context = place.begin("waits")
    context.connection.execute("INSERT INTO item VALUES (1)")
    waiting = threads.submit(value, context.connect(autocommit=True), COUNT)
    sleep(0.2)
    assert not waiting.done()
    context.connection.commit()
    assert waiting.result(LIMIT_S) == 1
    place.end(context)


async def test_a_test_that_waits_for_itself_is_told(place, threads, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.line.TURN_LIMIT_S", 0.3)
    context = place.begin("waits for itself")
    context.connection.execute("INSERT INTO item VALUES (1)")
    other = context.connect(autocommit=True)
    waiting = threads.submit(value, other, COUNT)
    with pytest.raises(psycopg.errors.LockNotAvailable, match=r"waited 0\.3 s for the transaction") as told:
        waiting.result(LIMIT_S)
    assert 'tdd(isolation="database")' in told.value.diag.message_hint
    started = monotonic()
    with pytest.raises(psycopg.errors.LockNotAvailable, match="has begun a transaction, and not ended it"):
        other.execute(COUNT)  # in the same thread nobody else could end it
    assert monotonic() - started < 0.2
    place.end(context)


async def test_a_statement_that_takes_long_is_waited_for(place, threads, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.line.TURN_LIMIT_S", 0.2)
    context = place.begin("waits for a statement")
    other = context.connect(autocommit=True)
    sleeping = threads.submit(other.execute, "SELECT pg_sleep(1)")
    sleep(0.1)
    assert value(context.connection, COUNT) == 0
    assert sleeping.result(LIMIT_S)
    place.end(context)


async def test_cancel_reaches_the_statement_that_it_is_meant_for(place, threads):
    context = place.begin("cancels")
    first, second = context.connect(autocommit=True), context.connect(autocommit=True)
    for cancel in (first.cancel, first.cancel_safe):
        sleeping = threads.submit(first.execute, "SELECT pg_sleep(30)")
        sleep(0.2)
        waiting = threads.submit(value, second, "SELECT 2")
        sleep(0.2)
        cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            sleeping.result(LIMIT_S)
        assert waiting.result(LIMIT_S) == 2
    sleeping = threads.submit(first.execute, "SELECT pg_sleep(1)")
    sleep(0.2)
    waiting = threads.submit(value, second, "SELECT 2")
    sleep(0.2)
    second.cancel()
    with pytest.raises(psycopg.errors.QueryCanceled):
        waiting.result(LIMIT_S)
    assert sleeping.result(LIMIT_S)
    second.cancel()  # of nothing
    assert value(second, "SELECT 3") == 3
    place.end(context)


async def test_ctrl_c_ends_the_statement_and_locks_nobody_out(place, threads):
    context = place.begin("interrupted")
    connection, other = context.connect(autocommit=True), context.connect(autocommit=True)
    started = monotonic()
    waiting = threads.submit(lambda: sleep(0.1) or value(other, "SELECT 1"))
    with _alarm(0.3, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        connection.execute("SELECT pg_sleep(30)")
    assert waiting.result(LIMIT_S) == 1
    assert value(connection, "SELECT 2") == 2
    assert monotonic() - started < 10
    place.end(context)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # out of somebody's `__del__`
async def test_an_exception_out_of_a_handler_at_any_moment_leaves_nothing_locked(place, threads):
    """What it left half done is seen, and the next test has a session that works."""
    for number in range(40):
        context = place.begin(str(number))
        connection = context.connect(autocommit=True)
        with suppress(InterruptedError, psycopg.Error), _alarm(0.002 + number * 2e-4, InterruptedError):
            for _ in range(2000):
                connection.execute("SELECT 1")
        with suppress(psycopg.OperationalError):
            other = context.connect(autocommit=True)
            assert threads.submit(value, other, "SELECT 2").result(LIMIT_S) == 2
        place.end(context)
    context = place.begin("at last")
    assert value(context.connection, COUNT) == 0
    place.end(context)


class _alarm:
    """Raise an exception in the main thread, a while from now."""

    def __init__(self, seconds, error):
        self._seconds = seconds
        self._error = error

    def __enter__(self):
        self._before = signal.signal(signal.SIGALRM, self._raise)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_error):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _raise(self, *_given):
        raise self._error


async def test_what_still_runs_at_the_end_is_refused_and_does_not_reach_the_next_test(place):
    context = place.begin("leaves threads")
    outcomes = []

    def straggle(connection, statement, go_on):
        try:
            connection.execute("INSERT INTO item VALUES (1)")
            connection.execute(statement)
        except psycopg.OperationalError as error:
            outcomes.append(error)
        go_on.wait(LIMIT_S)
        for use in (lambda: connection.execute("INSERT INTO item VALUES (2)"), context.connect):
            try:
                use()
            except (psycopg.OperationalError, StaleContext) as error:
                outcomes.append(error)

    go_on = threading.Event()
    stragglers = [
        threading.Thread(target=straggle, args=(context.connect(autocommit=True), statement, go_on))
        for statement in ("SELECT pg_sleep(30)", "SELECT 1")
    ]
    for thread in stragglers:
        thread.start()
        sleep(0.2)
    started = monotonic()
    place.end(context)
    assert monotonic() - started < 5
    following = place.begin("the next")
    go_on.set()
    for thread in stragglers:
        thread.join(LIMIT_S)
    assert [type(each).__name__ for each in outcomes].count("StaleContext") == 2
    assert len(outcomes) == 6
    assert value(following.connection, COUNT) == 0
    place.end(following)
