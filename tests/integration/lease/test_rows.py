"""Rows: what came is deleted, what went is put back, and what is too much makes a fresh copy take the place."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.integration.lease.conftest import Make, Place, in_place, replaced

from dataflow.testing.lease.broker import Broker
from dataflow.testing.reset import log


def test_after_reading_alone_nothing_is_to_be_done(place: Place) -> None:
    assert (
        in_place(place.after("SELECT count(*) FROM item", "SELECT * FROM item WHERE id = 1")) == "nothing to do"
    )


def test_rows_that_came_are_deleted_and_their_sequence_is_set_back(place: Place) -> None:
    plan = in_place(place.after("INSERT INTO item (name) VALUES ('a'), ('b')"))
    assert plan == "set public.item_id_seq back to 20; delete the rows at 2 places of public.item"


def test_rows_that_the_test_updated_itself_cost_no_more(place: Place) -> None:
    plan = in_place(place.after("INSERT INTO empty (name) VALUES ('a')", "UPDATE empty SET name = 'b'"))
    assert plan == "set public.empty_id_seq back to 1; delete the rows at 2 places of public.empty"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE item SET name = 'x' WHERE id = 3",
        "UPDATE item SET id = 300 WHERE id = 3",
        "DELETE FROM item WHERE id = 3",
        "DELETE FROM item",
        "WITH gone AS (DELETE FROM item WHERE id < 5 RETURNING *) INSERT INTO item SELECT * FROM gone",
        "MERGE INTO item USING (SELECT 3 AS id) s ON item.id = s.id WHEN MATCHED THEN DELETE",
    ],
)
def test_rows_of_the_template_are_put_back(place: Place, statement: str) -> None:
    if statement.startswith("MERGE") and place.version < 150_000:
        pytest.skip("there is no MERGE before PostgreSQL 15")
    plan = in_place(place.after(statement))
    assert plan == "put all rows of public.item back (8 kB): rows of the template were changed"


@pytest.mark.parametrize(
    "statements",
    [
        ("INSERT INTO item (id, name) VALUES (1, 'x') ON CONFLICT DO NOTHING",),
        ("INSERT INTO item (id, name) VALUES (100, 'x') ON CONFLICT DO NOTHING",),
        ("INSERT INTO item (id, name) VALUES (100, 'x') ON CONFLICT (id) DO UPDATE SET name = 'y'",) * 2,
    ],
)
def test_an_upsert_of_new_rows_is_put_back_by_deleting(place: Place, statements: tuple[str, ...]) -> None:
    assert "put all rows" not in in_place(place.after(*statements))


@pytest.mark.parametrize(
    "body",
    [
        "UPDATE item SET name = 'x'",
        "DELETE FROM item",
        "DELETE FROM large",
        "INSERT INTO empty (name) SELECT 'x' FROM generate_series(1, 100)",
        "SAVEPOINT s; DELETE FROM item; ROLLBACK TO s",
        "TRUNCATE item, large",
        "DROP TABLE item",
        "ALTER TABLE item ADD extra int DEFAULT 3",
    ],
)
def test_what_was_rolled_back_leaves_the_rows_of_the_template_alone(place: Place, body: str) -> None:
    plan = in_place(place.after(f"BEGIN; {body}; ROLLBACK"))
    assert "put all rows" not in plan


def test_rows_that_are_gone_from_a_large_table_make_a_fresh_copy_take_the_place(place: Place) -> None:
    reason = replaced(place.after("DELETE FROM large WHERE id = 7"))
    assert reason.startswith("public.large is large (")
    assert reason.endswith("kB): rows of the template were changed")
    assert in_place(place.after("INSERT INTO large VALUES (9999, 'x')")) == (
        "delete the rows at 1 places of public.large"
    )


def test_thousands_of_rows_are_not_deleted_one_by_one(place: Place) -> None:
    statement = "INSERT INTO {} SELECT g, 'x' FROM generate_series(10001, 16000) g"
    assert "more than 5000 rows came" in in_place(place.after(statement.format("item")))
    assert "more than 5000 rows came" in replaced(place.after(statement.format("large")))


def test_more_log_than_is_worth_reading_makes_a_fresh_copy_take_the_place(place: Place) -> None:
    many = "INSERT INTO empty (name) SELECT repeat('x', 1000) FROM generate_series(1, 6000)"
    assert replaced(place.after(many)) == "more than 4 MB of log were written meanwhile"


def test_rows_with_values_out_of_line_come_back_with_them(make: Make) -> None:
    place = make(
        "CREATE TABLE doc (id int, body text, raw bytea); ALTER TABLE doc ALTER raw SET STORAGE EXTERNAL;"
        "INSERT INTO doc SELECT g, (SELECT string_agg(md5(g || '.' || i), '') FROM generate_series(1, 200) i),"
        " decode(repeat('00ff5c0a09', 1000), 'hex') FROM generate_series(1, 8) g"
    )
    assert "put all rows" in in_place(place.after("UPDATE doc SET body = body || 'x' WHERE id = 2"))
    assert "put all rows" in in_place(place.after("UPDATE doc SET id = 9, raw = NULL"))
    copied = place.after("INSERT INTO doc SELECT 10, body, raw FROM doc LIMIT 1")
    assert "delete the rows at 1 places" in in_place(copied)


def test_values_come_back_as_they_were_whatever_the_roles_settings_are(make: Make) -> None:
    place = make(
        "CREATE TABLE v (f float8, i interval, t timestamptz, b bytea, m money);"
        "INSERT INTO v VALUES (0.1::float8 + 0.2, '-1 mon +2 days -03:04', '1900-01-01 00:00+00', '\\x005c', 3);"
        "INSERT INTO v VALUES ('NaN', '1 year', 'infinity', '', -3.5)",
    )
    role = f"{place.template}_admin"
    place.ask_admin(f"CREATE ROLE {role} SUPERUSER LOGIN")
    for setting in (
        "extra_float_digits = -5",
        "IntervalStyle = sql_standard",
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Kolkata'",
        "default_transaction_read_only = on",
        "standard_conforming_strings = off",
    ):
        place.ask_admin(f"ALTER ROLE {role} SET {setting}")
    place.broker.close()
    place.broker = Broker(replace(place.admin, user=role), place.user, lambda: place.template, place.terms)
    assert "put all rows" in in_place(place.after("UPDATE v SET f = 1"))
    place.broker.close()
    place.ask_admin(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    "more",
    [
        "ALTER TABLE t ADD day date GENERATED ALWAYS AS (day_of(at)) STORED",
        "CREATE INDEX ON t (day_of(at))",
        "CREATE INDEX ON t (n) WHERE day_of(at) > '2024-01-01'",
        "CREATE OPERATOR ## (RIGHTARG = timestamptz, FUNCTION = day_of); CREATE INDEX ON t ((##at))",
    ],
)
def test_what_functions_of_the_schema_compute_is_not_computed_again_in_another_session(
    make: Make, more: str
) -> None:
    """They may depend on its settings, whatever they say."""
    place = make(
        "SET TimeZone = 'Asia/Tokyo';"
        "CREATE FUNCTION day_of(timestamptz) RETURNS date LANGUAGE sql IMMUTABLE AS 'SELECT $1::date';"
        "CREATE TABLE t (n int DEFAULT 1, at timestamptz);"
        f"INSERT INTO t (at) VALUES ('2024-01-01 20:00+00'); {more}"
    )
    assert "delete the rows" in in_place(place.after("INSERT INTO t VALUES (2, now())"))
    assert replaced(place.after("UPDATE t SET n = 2")) == (
        "public.t has columns or indexes that functions of the schema compute"
    )


def test_what_the_server_itself_computes_is_computed_again(make: Make) -> None:
    place = make(
        "CREATE EXTENSION citext;"
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';"
        "CREATE TABLE t (n int DEFAULT one(), twice int GENERATED ALWAYS AS (n * 2) STORED, name citext UNIQUE);"
        "CREATE INDEX ON t (lower(name)); INSERT INTO t (name) VALUES ('a')"
    )
    assert "put all rows of public.t back" in in_place(place.after("UPDATE t SET n = 2"))


def test_before_postgresql_17_the_end_of_a_transaction_flushes(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_FLUSHES_BY_MESSAGE_SINCE", 990_000)
    place = make("CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE SEQUENCE s")
    assert in_place(
        place.after("SET synchronous_commit = off", "INSERT INTO t VALUES (2)", "SELECT nextval('s')")
    ) == ("delete the rows at 1 places of public.t; set public.s back to 1")
    assert "put all rows" in in_place(place.after("SET synchronous_commit = off", "DELETE FROM t"))
