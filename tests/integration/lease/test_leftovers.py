"""Who and what is still inside when a test is over, and who comes in when it is."""

from __future__ import annotations

import asyncio
import re
import threading

import asyncpg
import psycopg
import pytest
from tests.integration.lease.conftest import BY_LOG, Make, Place, connect, in_place, replaced
from tests.waiting import LIMIT_S, wait_until

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import StaleContext
from dataflow.testing.lease.broker import Terms
from dataflow.testing.lease.lease import DatabaseLease
from dataflow.testing.reset.log import Log, Written


def test_a_session_that_was_left_is_ended_and_told_with_all_that_is_known_of_it(place: Place) -> None:
    opened: list[psycopg.Connection] = []

    def work(lease: DatabaseLease) -> None:
        connection = lease.connect_psycopg(application_name="forgetful")
        connection.execute("INSERT INTO item (name) VALUES ('left')")
        connection.execute("SELECT 'password=hunter2' AS secret")
        opened.append(connection)

    returned = place.after_work(work)
    ((backend, where),) = returned.leaked
    assert backend.pid == opened[0].info.backend_pid
    assert (backend.application, backend.state) == ("forgetful", "idle in transaction")
    assert 0 <= backend.age_s < LIMIT_S
    assert backend.statement.startswith("SELECT 'password=")
    assert "hunter2" not in backend.statement
    assert where is not None
    assert re.fullmatch(r"test_leftovers\.py:\d+", where)
    with pytest.raises(psycopg.OperationalError):
        opened[0].execute("SELECT 1")
    opened[0].close()
    assert in_place(returned) == "set public.item_id_seq back to 20; delete the rows at 1 places of public.item"


def test_a_session_that_was_opened_elsewhere_is_told_without_a_line(place: Place) -> None:
    connections = []
    returned = place.after_work(lambda lease: connections.append(connect(lease.dsn)))
    ((_, where),) = returned.leaked
    assert where is None
    connections[0].close()


def test_a_session_that_was_closed_or_closes_by_itself_is_no_leak(make: Make) -> None:
    place = make("CREATE TABLE t (a int)", terms=Terms(spares=1, grace_s=LIMIT_S))

    def work(lease: DatabaseLease) -> None:
        lease.connect_psycopg().close()
        late = lease.connect_psycopg(autocommit=True)
        late.execute("INSERT INTO t VALUES (1)")
        threading.Timer(0.05, late.close).start()

    returned = place.after_work(work)
    assert returned.leaked == ()
    assert in_place(returned) == "delete the rows at 1 places of public.t"


def test_asyncpg_connections_are_known_by_their_line_too(place: Place) -> None:
    kept: list[asyncpg.Connection] = []

    async def work(lease: DatabaseLease) -> None:
        kept.append(await lease.connect())
        await kept[0].execute("INSERT INTO item (name) VALUES ('x')")

    with asyncio.Runner() as runner:
        returned = place.after_work(lambda lease: runner.run(work(lease)))
        kept[0].terminate()
    ((backend, where),) = returned.leaked
    assert backend.application == "dataflow-tdd"
    assert where is not None
    assert where.startswith("test_leftovers.py:")


def test_a_running_statement_is_ended(place: Place) -> None:
    def work(lease: DatabaseLease) -> None:
        connection = lease.connect_psycopg()
        started = threading.Event()

        def sleep() -> None:
            started.set()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT pg_sleep(100)")

        threading.Thread(target=sleep).start()
        assert started.wait(LIMIT_S)

    assert len(place.after_work(work).leaked) == 1


def test_prepared_transactions_are_rolled_back_and_told(place: Place) -> None:
    gid = f"it's {place.template}"

    def work(lease: DatabaseLease) -> None:
        with connect(lease.dsn) as connection:
            quoted = gid.replace("'", "''")
            connection.execute(f"BEGIN; DELETE FROM item; PREPARE TRANSACTION '{quoted}'".encode())

    returned = place.after_work(work)
    assert returned.prepared == (gid,)
    assert "put all rows" not in in_place(returned)
    assert place.ask_admin(f"SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE '%{place.template}'") == [(0,)]


def test_prepared_transactions_that_the_test_committed_count(place: Place) -> None:
    gid = place.template
    returned = place.after(
        f"BEGIN; DELETE FROM item WHERE id = 1; PREPARE TRANSACTION '{gid}'", f"COMMIT PREPARED '{gid}'"
    )
    assert "put all rows of public.item back" in in_place(returned)


def test_a_lease_that_is_over_says_so(place: Place) -> None:
    with place.lent() as lease:
        assert lease.url
    with pytest.raises(StaleContext, match="the database of a test was given back"):
        _ = lease.url
    assert place.broker.take_back(lease) is None


@BY_LOG
@pytest.mark.parametrize("before", ["SELECT 1", "INSERT INTO item (name) VALUES ('y')"])
def test_a_database_that_somebody_wrote_to_between_two_leases_is_not_lent_again(
    place: Place, before: str
) -> None:
    with place.lent() as lease:
        dsn = lease.dsn
        place.run(lease, before)
    come_and_go(place, dsn, "DELETE FROM item WHERE id = 1")
    with place.lent() as following:
        assert following.name != dsn.database
        assert place.differences(following) == []


def test_a_database_that_somebody_is_in_is_not_lent_again(place: Place) -> None:
    with place.lent() as lease:
        dsn = lease.dsn
    with connect(dsn), place.lent() as following:
        assert following.name != dsn.database


@BY_LOG
def test_a_database_that_was_only_looked_at_between_two_leases_is_lent_again(place: Place) -> None:
    with place.lent() as lease:
        dsn = lease.dsn
    come_and_go(place, dsn, "SELECT * FROM item")
    with place.lent() as following:
        assert following.name == dsn.database


def come_and_go(place: Place, dsn: Dsn, statement: str) -> None:
    """A session whose backend has gone when this returns."""
    with connect(dsn) as connection:
        connection.execute(statement.encode())
        pid = connection.info.backend_pid
    wait_until(
        lambda: place.ask_admin(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}") == [], "the backend ends"
    )


@BY_LOG
@pytest.mark.parametrize("visit", ["INSERT INTO cache VALUES (1)", "SELECT nextval('numbers')"])
def test_a_visitor_between_two_leases_is_seen_also_where_nothing_is_logged(make: Make, visit: str) -> None:
    place = make("CREATE UNLOGGED TABLE cache (a int); CREATE UNLOGGED SEQUENCE numbers; CREATE TABLE t (a int)")
    place.after("INSERT INTO t VALUES (1)")
    with place.lent() as lease:
        dsn = lease.dsn
    come_and_go(place, dsn, visit)
    with place.lent() as following:
        assert place.differences(following) == []
        assert following.name != dsn.database


def test_who_was_left_inside_and_comes_again_finds_no_database(place: Place) -> None:
    """Only connections that the lease opened are known not to come back by themselves."""
    with place.lent() as lease:
        dsn = lease.dsn
        stranger = connect(dsn)
    stranger.close()
    with place.lent() as following:
        assert following.name != dsn.database
        wait_until(lambda: dsn.database not in place.databases(), "the database is dropped")
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            connect(dsn)


def test_a_database_that_the_test_renamed_is_dropped(make: Make) -> None:
    place = make("CREATE TABLE t (a int)")
    with place.lent(fresh=True) as lease:
        place.ask_admin(f"ALTER DATABASE {lease.name} RENAME TO {place.template}_renamed")
    query = f"SELECT 1 FROM pg_database WHERE datname = '{place.template}_renamed'"
    wait_until(lambda: place.ask_admin(query) == [], "the database is dropped")


@BY_LOG
@pytest.mark.parametrize(
    "work",
    ["INSERT INTO item (name) VALUES ('y')", "UPDATE item SET name = 'y' WHERE id = 2", "REINDEX TABLE item"],
)
@pytest.mark.parametrize(
    "first", ["INSERT INTO item (name) VALUES ('x')", "UPDATE item SET name = 'x' WHERE id = 1"]
)
def test_who_comes_in_while_the_database_is_put_back_makes_it_be_replaced(
    place: Place, work: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it wrote could be committed after the rows were put back; and nobody waits for its locks for long."""
    lease = place.broker.lend("a test")
    dsn = lease.dsn
    place.run(lease, work)
    late: list[psycopg.Connection] = []

    def come_in(*given: object) -> object:
        written = read(*given)
        if isinstance(written, Written):
            late.append(psycopg.connect(dsn.url()))
            late[0].execute(first.encode())
        return written

    read = Log.read_if_alone
    monkeypatch.setattr(Log, "read_if_alone", come_in)
    returned = place.broker.take_back(lease)
    monkeypatch.undo()
    assert returned is not None
    assert replaced(returned) == "somebody came in while the database was being put back"
    with place.lent() as following:
        assert place.differences(following) == []
    late[0].close()


def test_transactions_are_rolled_back_in_a_session_that_has_worked_long(place: Place) -> None:
    """Drivers forget the statements that they prepared when something was rolled back, and ours with them."""

    def work(lease: DatabaseLease) -> None:
        place.run(lease, f"BEGIN; DELETE FROM item; PREPARE TRANSACTION '{place.template}'")

    for _ in range(8):
        assert "nothing to do" in in_place(place.after("REINDEX TABLE item"))
    for _ in range(2):
        assert "put all rows" not in in_place(place.after_work(work))
