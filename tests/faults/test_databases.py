"""Server, or process that has databases, are killed: what is lent afterwards is right, or an error says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest
from tests.exactness.picture import CANNOT_LOOK
from tests.integration.lease.conftest import Place, connect, in_place, replaced
from tests.servers import cache_of_its_own
from tests.waiting import LIMIT_S, wait_until

from dataflow.testing.databases.of_process import Databases
from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError
from dataflow.testing.lease import connecting
from dataflow.testing.lease.broker import Broker, Terms
from dataflow.testing.lease.lease import DatabaseLease
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database
from dataflow.testing.server.protocol import TEST_ROLE
from dataflow.testing.settings import Sources, resolve
from dataflow.testing.template import session
from dataflow.testing.template.files import SqlFiles
from dataflow.testing.template.store import TemplateStore

SCHEMA = """
CREATE TABLE item (id serial PRIMARY KEY, name text);
INSERT INTO item (name) SELECT 'item ' || g FROM generate_series(1, 20) g;
CREATE TABLE large (id int PRIMARY KEY, filler text);
INSERT INTO large SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g;
"""
UNLOGGED = "CREATE UNLOGGED TABLE cache (id serial, v text); INSERT INTO cache (v) VALUES ('a'), ('b');"


class Server:
    """A server in a cache of its own, which may be killed."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._lease = lease_database(EmbeddedOptions(cache_dir=cache), what="fault tests")
        self.admin = self._lease.admin_dsn

    def kill(self) -> None:
        """SIGKILL to the postmaster; its children notice and end. Then somebody needs it, and it is started."""
        self._end(signal.SIGKILL)

    def stop_in_order(self) -> None:
        """As `kill`, but the server has time to write all down."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        server = self._postmaster()
        children = server.children()
        server.send_signal(how)
        psutil.wait_procs([server, *children], LIMIT_S)
        self._lease.close()
        self._lease = lease_database(EmbeddedOptions(cache_dir=self._cache), what="fault tests")
        assert self._lease.admin_dsn.where == self.admin.where

    def kill_backend(self) -> None:
        """SIGKILL to one backend: the server ends all others and recovers.

        The server hears of the death a moment after the client does; until it has
        ended another session, too, it takes new ones as if nothing had happened.
        """
        admin = self.admin.with_database("postgres")
        with connect(admin) as connection, connect(admin) as witness:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                witness.execute("SELECT pg_sleep(60)")

    def close(self) -> None:
        self._lease.close()

    def _postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.data / "postmaster.pid").read_text().splitlines()[0]))

    @property
    def data(self) -> Path:
        (data,) = self._cache.glob("servers/*/data")
        return data


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """It is killed again and again, and comes back."""
    with cache_of_its_own() as cache:
        server = Server(cache)
        yield server
        server.close()


@pytest.fixture(scope="module")
def place(server: Server) -> Iterator[Place]:
    place = Place(server.admin, SCHEMA)
    _ = place.painter
    yield place
    place.close()


KILLS = ("kill", "kill_backend")


def right_or_said(place: Place) -> None:
    """The next leases are right; before that there may be an error that says that the server is away."""

    def lent() -> bool:
        try:
            lease = place.broker.lend("the next test")
        except (ServerError, psycopg.OperationalError):
            return False
        try:
            differences = place.differences(lease)
        except psycopg.OperationalError:
            differences = [CANNOT_LOOK]
        finally:
            place.broker.take_back(lease)
        if differences and differences[0].startswith(CANNOT_LOOK):
            return False  # it was lent before the server noticed that one of its processes is gone
        assert differences == []
        return True

    for _ in range(3):
        wait_until(lent, "a database is lent again")


@pytest.mark.parametrize("kill", KILLS)
def test_the_server_is_killed_between_two_leases(server: Server, place: Place, kill: str) -> None:
    with place.lent() as lease:
        place.run(lease, "DELETE FROM item")
    getattr(server, kill)()
    right_or_said(place)
    assert "put all rows" in in_place(place.after("UPDATE item SET name = 'x' WHERE id = 1"))


@pytest.mark.parametrize("kill", KILLS)
def test_the_server_is_killed_while_a_test_has_a_database(server: Server, place: Place, kill: str) -> None:
    lease = place.broker.lend("a test")
    place.run(lease, "DELETE FROM item")
    getattr(server, kill)()
    returned = place.broker.take_back(lease)
    assert returned is not None
    assert replaced(returned).startswith("putting it back failed")
    right_or_said(place)


@pytest.mark.parametrize("kill", KILLS)
def test_what_is_lent_stays_ours_when_the_server_was_away(server: Server, place: Place, kill: str) -> None:
    """Such as the database of all rollback tests of a process; and it is dropped in the end."""
    lasting = place.broker.lend("many tests", fresh=True)
    getattr(server, kill)()
    right_or_said(place)
    with closing(Broker(place.admin, place.user, lambda: place.template, Terms(spares=1))) as other:
        other.take_back(other.lend("a process that drops what nobody owns"))
    place.run(lasting, "INSERT INTO item (name) VALUES ('still there')")
    place.broker.take_back(lasting)
    wait_until(lambda: lasting.name not in place.databases(), "it is dropped")


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("moment", ["read", "restore", "COPY", "COMMIT"])
def test_the_server_is_killed_in_the_middle_of_a_reset(
    server: Server, place: Place, moment: str, kill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = place.broker.lend("a test")
    place.run(lease, "DELETE FROM item", "INSERT INTO item (name) VALUES ('new')")
    with monkeypatch.context() as patched:
        interrupt(patched, moment, lambda: getattr(server, kill)())
        returned = place.broker.take_back(lease)
    assert returned is not None
    # The last statement may be faster than the end of its backend.
    assert (returned.outcome.plan.replace or "putting it back failed").startswith("putting it back failed")
    right_or_said(place)


@pytest.mark.parametrize("moment", ["read", "restore", "COPY", "COMMIT"])
def test_the_process_is_killed_in_the_middle_of_a_reset(place: Place, moment: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", _KILLS_ITSELF, place.admin.url(), place.user.url(), place.template, moment],
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        cwd=Path(__file__).parents[2],
    )
    assert process.returncode == -signal.SIGKILL
    killed = process.stdout.strip()
    broker = Broker(place.admin, place.user, lambda: place.template, Terms(spares=1))
    try:
        assert killed not in place.databases()
        lease = broker.lend("the next process")
        assert place.differences(lease) == []
    finally:
        broker.close()


def test_a_server_that_says_nothing_is_not_awaited_for_ever(
    server: Server, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process of it is stopped: the others go on, as if the network to this one were gone."""
    monkeypatch.setattr(connecting, "STATEMENT_LIMIT_S", 1.0)
    monkeypatch.setattr(session, "_ANSWER_GRACE_S", 0.5)
    broker = Broker(place.admin, place.user, lambda: place.template, Terms(spares=1, limit_s=LIMIT_S))
    with closing(broker):
        lease = broker.lend("a test")
        place.run(lease, "INSERT INTO item (name) VALUES ('x')")
        ((pid,),) = place.ask_admin(
            "SELECT pid FROM pg_stat_activity WHERE datname = 'postgres'"
            " AND query ~ '^SELECT pg_current_wal_insert_lsn'"
            f" AND application_name ~ '^dataflow-tdd {os.getpid()}@' ORDER BY backend_start DESC LIMIT 1"
        )
        os.kill(pid, signal.SIGSTOP)
        try:
            returned = broker.take_back(lease)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert returned is not None
        assert "the server has not answered for 2 s" in replaced(returned)
        following = broker.lend("the next test")
        assert place.differences(following) == []


def interrupt(patched: pytest.MonkeyPatch, moment: str, strike: object) -> None:
    """Have something happen at a moment of the next reset, and only then."""
    from dataflow.testing.reset import log, restore

    places: dict[str, tuple[object, str]] = {
        "read": (log.Log, "read_if_alone"),
        "restore": (restore.Restorer, "carry_out"),
        "COPY": (restore, "copy_back"),
        "COMMIT": (restore, "send"),
    }
    target, name = places[moment]
    original = getattr(target, name)
    struck: list[bool] = []

    def struck_first(*given: object) -> object:
        if not struck and (moment != "COMMIT" or "COMMIT" in given[1]):  # type: ignore[operator]
            struck.append(True)
            strike()  # type: ignore[operator]
        return original(*given)

    patched.setattr(target, name, struck_first)


_KILLS_ITSELF = """
import os, signal, sys
import pytest
from tests.faults.test_databases import interrupt
from dataflow.testing.dsn import Dsn
from dataflow.testing.lease.broker import Broker, Terms
admin, user, template, moment = sys.argv[1:]
broker = Broker(Dsn.parse(admin), Dsn.parse(user), lambda: template, Terms(spares=1))
lease = broker.lend("a process that is killed")
with lease.connect_psycopg(autocommit=True) as connection:
    connection.execute("DELETE FROM item WHERE id < 5")
print(lease.name, flush=True)
interrupt(pytest.MonkeyPatch(), moment, lambda: os.kill(os.getpid(), signal.SIGKILL))
broker.take_back(lease)
"""


def test_log_that_is_gone_makes_a_fresh_copy_take_the_place(server: Server, place: Place) -> None:
    """The lease begins shortly before the end of a segment of the log, which is gone when it is over.

    The embedded server keeps more than a reset would read; here somebody else removes it.
    """

    def write(size_bytes: int) -> None:
        place.ask_admin(f"SELECT pg_logical_emit_message(false, 'test', repeat('x', {size_bytes}))")

    def work(lease: DatabaseLease) -> None:
        ((segment,),) = place.ask_admin("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        place.run(lease, "DELETE FROM item")
        write(2 * margin)
        place.run(lease, "CHECKPOINT", superuser=True)
        (server.data / "pg_wal" / segment).unlink()

    margin = 500_000
    ((room,),) = place.ask_admin("SELECT (1 << 24) - (pg_current_wal_insert_lsn() - '0/0')::bigint % (1 << 24)")
    if room > margin:
        write(room - margin)
    assert "has already been removed" in replaced(place.after_work(work))


@pytest.mark.parametrize("kill", KILLS)
def test_a_template_whose_unlogged_rows_were_lost_in_a_crash_is_built_anew(
    server: Server, tmp_path: Path, kill: str
) -> None:
    """Also by a process that did not know it before."""
    source = unlogged(tmp_path)
    user = replace(server.admin, user=TEST_ROLE)
    with closing(databases_of(server, user)) as ours, closing(databases_of(server, user)) as theirs:
        ours.take_back(ours.lend(source, "before"))
        getattr(server, kill)()
        wait_until(lambda: _answers(server.admin), "the server answers")
        for databases in (ours, theirs):
            for fresh in (False, True):
                lease = databases.lend(source, "after", fresh=fresh)
                with connect(lease.dsn) as connection:
                    assert connection.execute("SELECT count(*) FROM cache").fetchone() == (2,)
                databases.take_back(lease)


def test_a_template_with_unlogged_rows_outlives_a_server_that_stops_in_order(
    server: Server, tmp_path: Path
) -> None:
    source = unlogged(tmp_path)
    user = replace(server.admin, user=TEST_ROLE)
    for built in (True, False):
        with closing(TemplateStore(server.admin.with_database("postgres"), user)) as store:
            assert (store.ensure(source, LIMIT_S).built_ms is not None) == built
        server.stop_in_order()


def unlogged(folder: Path) -> SqlFiles:
    path = folder / "unlogged.sql"
    path.write_text(f"-- {folder}\n{UNLOGGED}")
    return SqlFiles(path)


def databases_of(server: Server, user: Dsn) -> Databases:
    settings = resolve(Sources.of_process())
    return Databases(server.admin.with_database("postgres"), user, settings, lambda event: None)


def _answers(admin: Dsn) -> bool:
    try:
        connect(admin.with_database("postgres")).close()
    except psycopg.OperationalError:
        return False
    return True
