"""Who gets which database, what the server allows, and what is left when processes end or are killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from tests.integration.lease.conftest import BY_LOG, Make, Place, connect, in_place, replaced
from tests.waiting import LIMIT_S, wait_until

from dataflow.testing.errors import CannotCreateDatabase, SchemaFailed, ServerError, TemplateBusy
from dataflow.testing.lease.broker import Broker, Terms
from dataflow.testing.lease.strategy import Method

# Lends a database, says which, and lives on until it is told to end.
_OTHER_PROCESS = """
import sys
from dataflow.testing.dsn import Dsn
from dataflow.testing.lease.broker import Broker, Terms
admin, user, template = sys.argv[1:]
broker = Broker(Dsn.parse(admin), Dsn.parse(user), lambda: template, Terms(spares=1))
lease = broker.lend("another process")
print(lease.name, flush=True)
sys.stdin.read()
broker.close()
"""


class Other:
    """A process with a broker of its own."""

    def __init__(self, place: Place, maintenance: str = "postgres") -> None:
        dsns = place.admin.with_database(maintenance).url(), place.user.url()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OTHER_PROCESS, *dsns, place.template],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.database = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=LIMIT_S)

    def end(self) -> None:
        self.process.communicate(timeout=LIMIT_S)


@pytest.fixture
def role(place: Place) -> Iterator[str]:
    """A role that may do nothing; it is dropped, with the databases that it has."""
    name = f"{place.template}_role"
    place.ask_admin(f"CREATE ROLE {name} LOGIN")
    yield name
    place.ask_admin(f"DROP ROLE {name}")


def as_role(place: Place, role: str) -> Broker:
    dsn = replace(place.admin, user=role)
    return Broker(dsn, dsn, lambda: None, Terms(spares=1))


def test_two_leases_at_once_are_two_databases(place: Place) -> None:
    with place.lent() as one, place.lent() as other:
        assert one.name != other.name
        place.run(one, "INSERT INTO item (name) VALUES ('one')")
        place.run(other, "DELETE FROM item")
        assert set(place.broker.leases) == {one, other}
    for _ in range(2):
        with place.lent() as following:
            assert place.differences(following) == []
    assert place.broker.leases == ()


@BY_LOG
def test_the_same_database_is_lent_again(place: Place) -> None:
    with place.lent() as one:
        place.run(one, "INSERT INTO item (name) VALUES ('one')")
    with place.lent() as other:
        assert one.name == other.name


@BY_LOG
def test_a_fresh_database_was_never_lent_and_is_never_lent_again(place: Place) -> None:
    with place.lent() as usual:
        pass
    fresh = place.broker.lend("a test", fresh=True)
    assert place.differences(fresh) == []
    returned = place.broker.take_back(fresh)
    assert returned is not None
    assert replaced(returned) == "each test gets a new one"
    with place.lent() as following:
        assert following.name != fresh.name
        assert following.name == usual.name


def test_at_the_end_no_database_is_left(make: Make) -> None:
    place = make("CREATE TABLE t (a int)")
    lease = place.broker.lend("never given back")
    place.after("CREATE TABLE x (a int)")
    names = {name for name in place.databases() if name.rpartition("_")[0] == lease.name.rpartition("_")[0]}
    assert lease.name in names
    place.broker.close()
    place.broker.close()
    assert not names & place.databases()


def test_a_template_that_is_gone_is_named_in_the_error(make: Make) -> None:
    place = make("CREATE TABLE t (a int)")
    place.broker.close()
    place.broker = Broker(place.admin, place.user, lambda: f"{place.template}_no_such", place.terms)
    with pytest.raises(ServerError, match=f"no copy of {place.template}_no_such could be made"):
        place.broker.lend("a test")


def test_a_template_that_cannot_be_made_leaves_no_session_behind(place: Place) -> None:
    def fails() -> str:
        raise SchemaFailed("no such table")

    def ours() -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
        return int(place.ask_admin(query)[0][0])

    before = ours()
    with pytest.raises(SchemaFailed):
        Broker(place.admin, place.user, fails, place.terms)
    wait_until(lambda: ours() == before, "its session ends")


def test_a_database_of_a_dead_process_that_nobody_can_enter_hinders_nobody(place: Place) -> None:
    """What was prepared in it can be rolled back only from inside."""
    other = Other(place)
    with connect(place.admin.with_database(other.database)) as inside:
        for statement in ("BEGIN", "CREATE TABLE x ()", f"PREPARE TRANSACTION '{other.database}'"):
            inside.execute(statement.encode())
    place.ask_admin(f"ALTER DATABASE {other.database} ALLOW_CONNECTIONS false")
    other.kill()
    try:
        Broker(place.admin, place.user, lambda: place.template, place.terms).close()
        assert other.database in place.databases()
    finally:
        place.ask_admin(f"ALTER DATABASE {other.database} ALLOW_CONNECTIONS true")
    Broker(place.admin, place.user, lambda: place.template, place.terms).close()
    assert other.database not in place.databases()


@BY_LOG
def test_parameters_of_the_url_are_settings_of_our_sessions_and_ours_win(place: Place) -> None:
    """As they are for asyncpg, which makes a setting of each that it does not know."""
    admin = replace(place.admin, parameters=(("search_path", "nowhere"), ("work_mem", "1MB")))
    with closing(Broker(admin, place.user, lambda: place.template, place.terms)) as broker:
        lease = broker.lend("a test")
        place.run(lease, "DELETE FROM item")
        returned = broker.take_back(lease)
    assert returned is not None
    assert "put all rows" in in_place(returned)


def test_a_lease_after_one_whose_end_was_interrupted(place: Place) -> None:
    """By the handler of a signal, such as that of a time limit: the connection has an answer that nobody read."""
    lease = place.broker.lend("a test")
    maintenance = place.broker._maintenance.connection
    maintenance.pgconn.send_query(b"SELECT pg_sleep(0.1)")
    place.broker.take_back(lease)
    with place.lent() as following:
        assert place.differences(following) == []
    assert maintenance.closed


def test_a_database_that_was_made_a_template_is_dropped_all_the_same(place: Place) -> None:
    with place.lent() as lease:
        place.ask_admin(f"ALTER DATABASE {lease.name} IS_TEMPLATE true")
    wait_until(lambda: lease.name not in place.databases(), "it is dropped")


def test_a_copy_whose_settings_cannot_be_set_does_not_stay(make: Make) -> None:
    """Such as one of an extension that is not loaded any more."""
    place = make("CREATE TABLE t (a int)")
    place.ask_admin(f"ALTER DATABASE {place.template} SET search_path = 'x'")
    place.ask_admin(
        "UPDATE pg_db_role_setting SET setconfig = '{no_such_setting=1}'"
        f" WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = '{place.template}')"
    )
    before = place.databases()
    with pytest.raises(ServerError, match='parameter "no_such_setting"'):
        place.broker.lend("a test")
    wait_until(lambda: place.databases() <= before, "the copy is dropped")


def test_a_template_that_somebody_has_open_is_told_with_who(make: Make) -> None:
    place = make("CREATE TABLE t (a int)")
    with connect(place.admin.with_database(place.template)) as visitor:
        visitor.execute("SET application_name = 'a curious person'")
        with pytest.raises(TemplateBusy, match="a curious person"):
            place.broker.lend("a test")


def test_a_subscription_does_not_keep_a_database_from_being_dropped(make: Make) -> None:
    place = make("CREATE TABLE t (a int)")
    subscribe = (
        "CREATE SUBSCRIPTION {} CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE)"
    )
    lease = place.broker.lend("a test")
    place.run(lease, subscribe.format(place.template), superuser=True)
    returned = place.broker.take_back(lease)
    assert returned is not None
    place.broker.close()
    assert lease.name not in place.databases()
    assert replaced(returned).startswith(("the schema changed", "settings of the database itself changed"))


def test_without_createdb_it_is_said_what_to_do(place: Place, role: str) -> None:
    with pytest.raises(CannotCreateDatabase) as caught:
        as_role(place, role)
    assert str(caught.value).startswith(f"role {role} may not create databases")
    assert f'way out: ALTER ROLE "{role}" CREATEDB' in str(caught.value)


@BY_LOG
def test_without_superuser_each_test_gets_a_fresh_copy(place: Place, role: str) -> None:
    place.ask_admin(f"ALTER ROLE {role} CREATEDB")
    broker = as_role(place, role)
    try:
        assert broker.strategy.method is Method.CLONE
        assert f"take a superuser, {role} is none" in str(broker.strategy)
        names = set()
        for _ in range(3):
            lease = broker.lend("a test")
            names.add(lease.name)
            with connect(lease.dsn) as connection:
                assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)
                connection.execute("CREATE TABLE t (a int)")
            returned = broker.take_back(lease)
            assert returned is not None
            assert replaced(returned) == str(broker.strategy)
        assert len(names) == 3
    finally:
        broker.close()


def test_databases_of_a_killed_process_are_dropped_by_the_next_but_not_those_of_a_living_one(
    place: Place,
) -> None:
    killed, living = Other(place), Other(place)
    killed.kill()
    next_one = Other(place)
    left = place.databases()
    assert killed.database not in left
    assert {living.database, next_one.database} <= left
    living.end()
    next_one.end()
    assert not {living.database, next_one.database} & place.databases()


def test_a_living_process_is_known_also_from_another_maintenance_database(make: Make) -> None:
    place = make("CREATE TABLE t (a int)")
    elsewhere = f"{place.template}_elsewhere"
    place.ask_admin(f"CREATE DATABASE {elsewhere}")
    other = Other(place, elsewhere)
    with place.lent():
        Broker(place.admin, place.user, lambda: place.template, place.terms).close()
        assert other.database in place.databases()
    other.end()
    place.ask_admin(f"DROP DATABASE {elsewhere} WITH (FORCE)")


@BY_LOG
def test_an_extension_that_is_older_than_the_server_is_updated(make: Make) -> None:
    """As an upgrade of the server leaves it."""
    place = make("CREATE TABLE t (a int)")
    elsewhere = f"{place.template}_elsewhere"
    place.ask_admin(f"CREATE DATABASE {elsewhere}")
    place.ask_admin("CREATE EXTENSION pg_walinspect VERSION '1.0'", elsewhere)
    place.broker.close()
    place.broker = Broker(place.admin.with_database(elsewhere), place.user, lambda: place.template, place.terms)
    assert in_place(place.after("INSERT INTO t VALUES (1)")) == "delete the rows at 1 places of public.t"
    place.broker.close()
    place.ask_admin(f"DROP DATABASE {elsewhere} WITH (FORCE)")


@BY_LOG
def test_when_our_own_session_was_ended_the_database_is_replaced(place: Place) -> None:
    lease = place.broker.lend("a test")
    ended = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()"
    )
    place.ask_admin(ended.format(lease.name))
    place.run(lease, "DELETE FROM item")
    returned = place.broker.take_back(lease)
    assert returned is not None
    assert replaced(returned).startswith("putting it back failed")
    with place.lent() as following:
        assert place.differences(following) == []


def test_when_the_maintenance_session_was_ended_the_next_lease_is_right(make: Make) -> None:
    place = make("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    with place.lent() as lease:
        pass
    for fresh in (False, True):
        place.ask_admin(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            f" WHERE locktype = 'advisory' AND classid = {0x7DD1}"
            f" AND objid = x'{lease.name.split('_')[2]}'::int"
        )
        with place.lent(fresh=fresh) as lease:
            assert place.differences(lease) == []
            place.run(lease, "DELETE FROM t")


def test_a_reset_that_is_refused_makes_a_fresh_copy_take_the_place(make: Make) -> None:
    """A check that does not hold any more: the rows cannot be put back."""
    place = make(
        "CREATE TABLE moment (now timestamptz CHECK (now > clock_timestamp() - interval '1 s'));"
        "INSERT INTO moment VALUES (clock_timestamp())"
    )
    place.ask_admin("SELECT pg_sleep(1.1)")
    assert "violates check constraint" in replaced(place.after("DELETE FROM moment"))
