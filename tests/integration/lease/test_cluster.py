"""What a test changed outside of its database is told; it cannot be put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.lease.conftest import BY_LOG, Make, Place, connect, in_place, replaced
from tests.waiting import wait_until

from dataflow.testing.server.protocol import TEST_ROLE

pytestmark = BY_LOG


@pytest.fixture
def role(place: Place) -> Iterator[str]:
    name = f"{place.template}_told"
    yield name
    place.ask_admin(f"DROP ROLE IF EXISTS {name}")


def test_a_role_that_was_made_or_changed_is_told(place: Place, role: str) -> None:
    made = place.after(f"CREATE ROLE {role}", superuser=True)
    assert in_place(made) == "nothing to do"
    assert f"role {role}" in made.outcome.cluster.others
    assert f"role {role}" in place.after(f"ALTER ROLE {role} CREATEDB", superuser=True).outcome.cluster.others
    settings = place.after(f"ALTER ROLE {role} SET work_mem = '1MB'", superuser=True)
    assert f"settings of {role}" in settings.outcome.cluster.others
    comment = place.after(f"COMMENT ON ROLE {role} IS 'x'", superuser=True)
    assert "a comment" in comment.outcome.cluster.others


def test_a_role_that_was_dropped_is_told(place: Place, role: str) -> None:
    place.ask_admin(f"CREATE ROLE {role}")
    dropped = place.after(f"DROP ROLE {role}", superuser=True)
    assert "something of pg_authid, which is gone" in dropped.outcome.cluster.others


def test_a_role_that_the_test_made_and_dropped_is_not_told(place: Place, role: str) -> None:
    returned = place.after(f"CREATE ROLE {role}; DROP ROLE {role}", superuser=True)
    assert f"role {role}" not in returned.outcome.cluster.others


def test_a_database_that_the_test_made_is_told(place: Place) -> None:
    name = f"{place.template}_made"
    returned = place.after(f"CREATE DATABASE {name} {place.strategy}")
    assert f"database {name}" in returned.outcome.cluster.others
    place.ask_admin(f"DROP DATABASE {name}")


@pytest.mark.parametrize("catalog", ["pg_database", "pg_db_role_setting"])
def test_a_shared_catalog_that_somebody_rewrote_hides_nothing(place: Place, catalog: str) -> None:
    place.ask_admin(f"VACUUM FULL {catalog}")
    setting, right = "ALTER DATABASE %I SET work_mem = '1MB'", "GRANT CREATE ON DATABASE %I TO PUBLIC"
    do = "DO $$ BEGIN EXECUTE format($s${}$s$, current_database()); END $$"
    for _ in range(2):
        place.after(do.format(setting), do.format(right))


ASKED = "SHOW search_path", 'SHOW "app.tenant"', 'SHOW "TimeZone"', "SHOW work_mem"
AS_SET = ['app, "we, ird"', "it's; 5%", "Asia/Tokyo", "1MB"]


@pytest.fixture
def with_settings(make: Make) -> Place:
    return make(
        """
        CREATE SCHEMA app; CREATE TABLE app.t (n int);
        DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET search_path = app, "we, ird"', current_database());
            EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database());
            EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET work_mem = ''1MB''', current_database());
        END $$
        """,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET app.tenant = ''it''''s; 5%%''', current_database());"
        " END $$",
    )


def settings_of(place: Place) -> list[str]:
    with place.lent() as lease, connect(lease.dsn) as connection:
        return [connection.execute(text.encode()).fetchall()[0][0] for text in ASKED]


def test_settings_of_the_template_hold_in_its_copies(with_settings: Place) -> None:
    assert settings_of(with_settings) == AS_SET
    returned = with_settings.broker.take_back(with_settings.broker.lend("a test"))
    assert returned is not None
    assert in_place(returned) == "nothing to do"
    assert returned.outcome.cluster.others == ()


@pytest.mark.parametrize("change", ["SET work_mem = ''2MB''", "RESET ALL", "RESET search_path"])
def test_settings_that_a_test_changed_replace_the_database(with_settings: Place, change: str) -> None:
    lease = with_settings.broker.lend("a test")
    alter = f"EXECUTE format('ALTER DATABASE %I {change}', current_database())"
    with_settings.run(lease, f"DO $$ BEGIN {alter}; END $$")
    returned = with_settings.broker.take_back(lease)
    assert returned is not None
    assert replaced(returned) == "settings of the database itself changed (pg_db_role_setting)"
    assert settings_of(with_settings) == AS_SET


def test_copies_whose_owner_was_changed_from_another_database_are_not_lent(make: Make, role: str) -> None:
    """`REASSIGN OWNED` says of databases, too, wherever it runs."""
    place = make("CREATE TABLE t (a int)")
    place.ask_admin(f"CREATE ROLE {role}")
    with place.lent() as lease:
        ours = lease.name.rpartition("_")[0]
    wait_until(lambda: sum(name.startswith(ours) for name in place.databases()) > 1, "another copy is made")
    place.after(f"REASSIGN OWNED BY {TEST_ROLE} TO {role}", superuser=True)
    with place.lent() as lease:
        query = f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{lease.name}'"
        assert place.ask_admin(query) == [(TEST_ROLE,)]
        assert place.differences(lease) == []
    place.ask_admin(f"REASSIGN OWNED BY {role} TO {TEST_ROLE}")
