"""Rollback tests with psycopg: production's transactions on its connections, and nothing that stays."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path

import psycopg
import pytest

from dataflow.testing.errors import CommitEscaped, DatabaseNotClean, StaleContext, TransactionEnded
from dataflow.testing.events import ContextReleased

COUNT = "SELECT count(*) FROM item"


@pytest.fixture
def place(tdd):
    """The same database as the other tests of this folder have, through psycopg."""
    tests = tdd.psycopg_tests
    tests.seen = tdd.events
    return tests


pytestmark = pytest.mark.asyncio  # for the fixture `tdd`, which owns the database


def ids(connection):
    return [row[0] for row in connection.execute("SELECT id FROM item ORDER BY id").fetchall()]


async def test_autocommit(tdd, place):
    context = place.begin("autocommit")
    connection = context.connect(autocommit=True)
    connection.execute("INSERT INTO item VALUES (%s)", (1,))
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1/0")
    with connection.transaction():
        connection.execute("INSERT INTO item VALUES (2)")
        with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
            connection.execute("INSERT INTO item VALUES (3); SELECT 1/0")
    assert ids(connection) == [1, 2]
    assert tdd.ask("SELECT id FROM item") == []
    place.end(context)
    assert tdd.ask("SELECT id FROM item") == []
    assert place.seen[-1].isolated


async def test_transactions_that_begin_by_themselves(tdd, place):
    context = place.begin("by itself")
    connection = context.connection
    connection.execute("INSERT INTO item VALUES (1)")
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    connection.commit()
    connection.execute("INSERT INTO item VALUES (2)")
    connection.rollback()
    with pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM nowhere")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.rollback()
    with connection:
        connection.execute("INSERT INTO item VALUES (3)")
    assert connection.closed
    assert ids(context.connect()) == [1, 3]
    place.end(context)
    assert tdd.ask("SELECT id FROM item") == []


async def test_rows_in_and_out_in_bulk(place):
    context = place.begin("bulk")
    context.connect()
    connection = context.connection  # its names are not those of the session
    with connection.cursor() as cursor:
        with cursor.copy("COPY item FROM STDIN") as copy:
            for number in range(100_000):
                copy.write_row((number,))
        with cursor.copy("COPY item TO STDOUT") as copy:
            assert sum(bytes(block).count(b"\n") for block in copy) == 100_000
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), cursor.copy("COPY item FROM STDIN") as copy:
            copy.write("x\n")
    connection.rollback()
    with connection.cursor(name="of_the_server") as cursor:
        cursor.execute("SELECT generate_series(1, 1000)")
        assert len(cursor.fetchmany(10)) == 10
    connection.rollback()
    assert len(connection.execute("SELECT generate_series(1, 200000)").fetchall()) == 200_000
    connection.rollback()
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(50)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))
    place.end(context)


async def test_statements_that_psycopg_prepares(place):
    for test in ("first", "second"):
        context = place.begin(test)
        for connection in (context.connect(prepare_threshold=0), context.connect()):
            for number in range(3):
                assert connection.execute("SELECT %s::int", (number,), prepare=True).fetchone() == (number,)
            connection.commit()
        place.end(context)


async def test_a_statement_of_many_bytes_is_not_taken_for_one_that_waits(place, monkeypatch):
    monkeypatch.setattr("dataflow.testing.isolation.line.TURN_LIMIT_S", 0.0)
    context = place.begin("large")
    text = "x" * 10_000_000
    assert context.connection.execute("SELECT %s::text, %s::text", (text, text)).fetchone() == (text, text)
    place.end(context)


async def test_a_pipeline_goes_on_behind_its_commit(place):
    context = place.begin("commits in a pipeline")
    connection = context.connection
    statements = "INSERT INTO item VALUES (1)", "COMMIT", "INSERT INTO item VALUES (2)", "SELECT 1/0"
    with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline():
        deque(map(connection.execute, statements))
    connection.rollback()
    assert ids(connection) == [1]
    place.end(context)


async def test_waiting_for_notifications_is_no_wait_for_the_server(make):
    runtime = make(timeout=1)
    context = runtime.psycopg_tests.begin("hears nothing")
    connection = context.connect(autocommit=True)
    connection.execute("LISTEN news")
    assert list(connection.notifies(timeout=2.0)) == []
    assert connection.execute("SELECT 1").fetchone() == (1,)
    runtime.psycopg_tests.end(context)


async def test_several_connections_take_turns(place):
    context = place.begin("turns")
    first, second = context.connection, context.connect()
    first.execute("INSERT INTO item VALUES (1)")
    with pytest.raises(
        psycopg.errors.LockNotAvailable, match="another connection of this test has begun"
    ) as told:
        second.execute(COUNT)
    assert 'tdd(isolation="database")' in told.value.diag.message_hint
    first.commit()
    second.rollback()
    assert ids(second) == [1]
    place.end(context)
    assert first.closed
    assert second.closed
    with pytest.raises(StaleContext, match="context of turns: the test is over"):
        context.connect()


async def test_one_session_serves_all_and_another_one_when_it_was_ended(tdd, place):
    pids = []
    for number in range(4):
        context = place.begin(str(number))
        pids.append(context.connection.info.backend_pid)
        for _ in range(7):  # so often that psycopg prepares it, and leaves that behind
            assert context.connection.execute(COUNT).fetchone() == (0,)
        context.connection.execute("INSERT INTO item VALUES (1)")
        context.connection.commit()
        place.end(context)
        if number == 1:
            tdd.ask(f"SELECT pg_terminate_backend({pids[-1]})")
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert tdd.ask("SELECT id FROM item") == []


async def test_the_server_ends_the_session_while_a_test_has_prepared_statements(tdd, place):
    context = place.begin("ended")
    for _ in range(7):
        context.connection.execute(COUNT)
    tdd.ask(f"SELECT pg_terminate_backend({context.connection.info.backend_pid}, 5000)")
    place.end(context)
    context = place.begin("the next")
    assert context.connection.execute(COUNT).fetchone() == (0,)
    place.end(context)


async def test_an_interrupted_statement_does_not_disturb_the_next_test(place):
    context = place.begin("interrupted")
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(InterruptedError):
        context.connection.execute("SELECT pg_sleep(0.5)")
    place.end(context)
    context = place.begin("the next")
    assert context.connection.execute(COUNT).fetchone() == (0,)
    place.end(context)


def _interrupt(*_given: object) -> None:
    raise InterruptedError


async def test_getting_out_all_the_same_is_found_and_stops_the_others_where_it_cannot_be_undone(tdd, place):
    tdd.ask("INSERT INTO item VALUES (1)")
    context = place.begin("escapes")
    context.connection.execute("UPDATE item SET id = 2")
    context.connection.commit()
    place._line.ask("COMMIT")
    with pytest.raises(TransactionEnded, match="escapes: it left the transaction"):
        place.end(context)
    assert not place.seen[-2].isolated
    assert "1 row updated" in str(place.seen[-1])
    with pytest.raises(DatabaseNotClean):
        place.begin("later")
    tdd.ask("DELETE FROM item RETURNING id")


async def test_what_is_prepared_by_sql_does_not_reach_the_next_test(tdd, place):
    for statement in (
        "PREPARE mine AS SELECT 1",
        "SELECT 1; PREPARE mine AS SELECT 1",
        "DEALLOCATE ALL",
        "SELECT 1",
    ) * 2:
        context = place.begin(statement)
        connection = context.connect(autocommit=True)
        assert connection.execute("SELECT name FROM pg_prepared_statements WHERE name = 'mine'").fetchall() == []
        connection.execute(statement)
        place.end(context)
        assert (place.seen[-1].problem, place.seen[-1].unproven) == (None, None)
    assert sum(event.opened for event in place.seen if isinstance(event, ContextReleased)) == 1


async def test_what_others_commit_meanwhile_is_found_and_undone(tdd, place):
    context = place.begin("has others beside it")
    context.connection.execute("INSERT INTO item VALUES (1)")
    context.connection.commit()
    tdd.ask("INSERT INTO item VALUES (2)")
    with pytest.raises(
        CommitEscaped, match=r"has others beside it: something .*; it was undone\n- public.item: 1 row added"
    ):
        place.end(context)
    assert tdd.ask("SELECT id FROM item") == []
    place.end(place.begin("later"))
    assert place.seen[-1].unproven is None


async def test_an_engine_of_sqlalchemy_is_in_the_transaction(tdd, place):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    context = place.begin("an application")
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=context.connect)
    insert = sqlalchemy.text("INSERT INTO item VALUES (:id)")
    with orm.Session(engine) as session:
        session.execute(insert, {"id": 1})
        session.commit()
        session.execute(insert, {"id": 2})
        session.rollback()
        with session.begin_nested():
            session.execute(insert, {"id": 3})
        session.commit()
        assert list(session.scalars(sqlalchemy.text("SELECT id FROM item ORDER BY id"))) == [1, 3]
    engine.dispose()
    place.end(context)
    assert tdd.ask("SELECT id FROM item") == []


async def test_nothing_of_it_stays_open(tdd, place):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        context = place.begin(str(number))
        context.connect().execute("SELECT 1")
        place.end(context)
    place.close()
    # Two more, if somebody committed something meanwhile: over them log and database are looked into.
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # out of a `__del__`, or of a socket
async def test_an_end_that_is_interrupted_does_not_reach_the_next_test(tdd, place):
    """By Ctrl-C, or by a plug-in that limits the time of a test."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted, contexts = 0, []
    try:
        for number in range(100):
            context = place.begin(f"test {number}")
            contexts.append(context)
            assert ids(context.connection) == []
            context.connection.execute("INSERT INTO item VALUES (1)")
            context.connection.commit()
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 * (number + 1))
                place.end(context)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        while contexts:
            contexts.pop().end()
        del context
        gc.collect()
    assert interrupted


async def test_without_unix_sockets_it_is_told():
    """As on Windows, which has no `select.poll` either."""
    program = (
        "import select, socket, psycopg\n"
        "del select.poll, select.POLLIN, select.POLLOUT, socket.AF_UNIX\n"
        "from dataflow.testing.dsn import Dsn\n"
        "from dataflow.testing.isolation.in_step import Line\n"
        "Line(Dsn.parse('postgresql://localhost/app_test'), 1.0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "cannot be rolled back: this system has no UNIX sockets" in ended.stderr
    assert 'tdd(isolation="database")' in ended.stderr


async def test_what_is_skipped_behind_an_error_is_recorded_with_its_own_text(place):
    context = place.begin("skipped")
    connection = context.connect(autocommit=True)

    def run() -> None:
        with connection.pipeline():
            connection.execute("SAVEPOINT a")
            connection.execute("UPDATE login SET password = %s", ("hunter2",))

    with pytest.raises(psycopg.errors.NoActiveSqlTransaction):
        run()
    told = [(statement.sql, statement.parameters) for statement in context.statements]
    assert told == [("SAVEPOINT a", []), ("UPDATE login SET password = ***", ["***"])]
    place.end(context)


async def test_connections_one_after_the_other_prepare_what_they_like(place):
    context = place.begin("one after the other")
    for number in range(3):
        with context.connect(autocommit=True) as connection:
            for _ in range(7):  # psycopg prepares what it has seen five times
                assert connection.execute("SELECT %s::int", (number,)).fetchone() == (number,)
    place.end(context)


async def test_settings_have_quoted_names(tdd, place):
    context = place.begin("quoted")
    connection = context.connect(autocommit=True)
    for name in ("work_mem", "Work_Mem"):
        local = psycopg.sql.SQL("SET LOCAL {} = '3MB'").format(psycopg.sql.Identifier(name))
        with connection.transaction():
            connection.execute(local)
            assert connection.execute("SHOW work_mem").fetchone() == ("3MB",)
        assert connection.execute("SHOW work_mem").fetchone() == ("4MB",)
    place.end(context)


INTRUDER = r"""
import pathlib, re, socket
known, kept = set(), []
print("ready", flush=True)
while True:
    for name in re.findall(r"@(tdd-[0-9a-f]+/.s.PGSQL.\d+)", pathlib.Path("/proc/net/unix").read_text()):
        if name not in known:
            known.add(name)
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect("\0" + name)
                sock.send(b"\0\0\0\x08\0\0\0\0")
                kept.append(sock)
            except OSError:
                pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names without a file are Linux's")
async def test_who_else_knocks_at_the_door_of_a_connection_is_not_let_in(place):
    context = place.begin("an intruder")
    intruder = subprocess.Popen([sys.executable, "-c", INTRUDER], stdout=subprocess.PIPE)
    try:
        assert intruder.stdout.readline() == b"ready\n"
        for number in range(3000):  # it comes first in some of them
            with context.connect(autocommit=True) as connection:
                assert connection.execute("SELECT %s::int", (number,)).fetchone() == (number,)
    finally:
        intruder.kill()
        intruder.communicate()
        place.end(context)
