"""What rewrites files or statistics, and what changes the schema."""

from __future__ import annotations

import pytest
from tests.integration.lease.conftest import Make, Place, in_place, replaced

from dataflow.testing.lease.broker import Broker

FILE = "its file was replaced"
ITEM = f"put all rows of public.item back (8 kB): {FILE}"


@pytest.mark.parametrize(
    ("statement", "plan"),
    [
        ("TRUNCATE item", ITEM),
        ("TRUNCATE item RESTART IDENTITY", ITEM),
        ("TRUNCATE item, empty", ITEM),
        ("TRUNCATE item; INSERT INTO item (name) VALUES ('a')", ITEM),
        ("BEGIN; TRUNCATE item; COPY item (name) FROM PROGRAM 'echo x'; COMMIT", None),
        ("REINDEX TABLE item", "nothing to do"),
        ("VACUUM item", "nothing to do"),
        ("VACUUM FULL item", ITEM),
        ("ALTER TABLE item DISABLE ROW LEVEL SECURITY", "nothing to do"),
        ("VACUUM (FREEZE) item", "nothing to do"),
        ("BEGIN; CREATE TABLE x (a int); INSERT INTO x VALUES (1); ROLLBACK", "nothing to do"),
    ],
)
def test_rewritten_files_and_housekeeping(place: Place, statement: str, plan: str | None) -> None:
    superuser = "PROGRAM" in statement
    found = in_place(place.after(statement, superuser=superuser))
    if plan is not None:
        assert plan in found


def test_a_table_that_was_truncated_twice_is_put_back_twice(make: Make) -> None:
    """The second test meets the file that the first one left. In a database that many tests have used, a page of
    pg_class may be cleaned meanwhile, and the place of its row be used again; then it is replaced."""
    place = make("CREATE TABLE item (id serial, name text); INSERT INTO item (name) VALUES ('x'), ('y')")
    assert ITEM in in_place(place.after("TRUNCATE item", "TRUNCATE item", "INSERT INTO item (name) VALUES ('a')"))
    assert "delete the rows at 1 places" in in_place(place.after("INSERT INTO item (name) VALUES ('b')"))
    assert ITEM in in_place(place.after("TRUNCATE item"))


def test_a_large_table_that_was_truncated_makes_a_fresh_copy_take_the_place(place: Place) -> None:
    assert replaced(place.after("TRUNCATE large")).endswith("kB): its file was replaced")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE x (a int)",
        "DROP TABLE empty",
        "ALTER TABLE item RENAME TO thing",
        "ALTER TABLE item ADD extra int",
        "ALTER TABLE item SET UNLOGGED",
        "ALTER TABLE item ALTER name SET DEFAULT 'x'",
        "CREATE INDEX ON item (name)",
        "CREATE INDEX CONCURRENTLY ON item (name)",
        "REINDEX INDEX CONCURRENTLY item_pkey",
        "CLUSTER item USING item_pkey",
        "ANALYZE item",
        "CREATE VIEW v AS SELECT 1 AS one",
        "CREATE TYPE t AS ENUM ('a')",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "COMMENT ON TABLE item IS 'x'",
        "GRANT SELECT ON item TO PUBLIC",
        "CREATE SCHEMA s",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "CREATE EXTENSION hstore",
        "ALTER TABLE item ENABLE ROW LEVEL SECURITY",
        "BEGIN; CREATE INDEX ON empty (name); ROLLBACK",  # pg_class goes on saying that it has an index
    ],
)
def test_a_changed_schema_makes_a_fresh_copy_take_the_place(place: Place, statement: str) -> None:
    assert replaced(place.after(statement)).startswith("the schema changed (pg_")


def test_what_of_the_schema_changed_is_told(place: Place) -> None:
    assert replaced(place.after("COMMENT ON TABLE item IS 'x'")) == "the schema changed (pg_description)"
    assert replaced(place.after("GRANT SELECT ON item TO PUBLIC")) == "the schema changed (pg_class)"
    assert replaced(place.after("ANALYZE item")) == "the schema changed (pg_statistic)"


@pytest.mark.parametrize("catalog", ["pg_class", "pg_attribute", "pg_type", "pg_statistic"])
def test_a_rewritten_catalog_hides_no_change(place: Place, catalog: str) -> None:
    place.after(f"VACUUM FULL {catalog}", superuser=True)
    place.after("GRANT SELECT ON item TO PUBLIC")
    place.after("TRUNCATE item")
    place.after("CREATE TABLE x (a int)")


def test_names_that_were_swapped_are_not_taken_for_each_other(make: Make) -> None:
    place = make(
        "CREATE TABLE a (n int); CREATE TABLE b (n int); INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)"
    )
    swap = "ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b"
    assert replaced(place.after("DELETE FROM a", swap)) == "the schema changed (pg_class)"


def test_vacuum_that_corrects_the_catalog_makes_a_fresh_copy_take_the_place(
    make: Make,
) -> None:
    place = make("CREATE TABLE t (n int); CREATE INDEX i ON t (n); DROP INDEX i")
    assert replaced(place.after("VACUUM t")) == "the schema changed (pg_class)"


def test_settings_and_comment_of_the_database_make_a_fresh_copy_take_the_place(place: Place) -> None:
    for statement, catalog in (
        ("ALTER DATABASE %I SET work_mem = '1MB'", "pg_db_role_setting"),
        ("ALTER ROLE CURRENT_USER IN DATABASE %I SET work_mem = '1MB'", "pg_db_role_setting"),
        ("COMMENT ON DATABASE %I IS 'x'", "pg_shdescription"),
        ("GRANT CREATE ON DATABASE %I TO PUBLIC", "pg_database"),
        ("ALTER DATABASE %I CONNECTION LIMIT 50", "pg_database"),
    ):
        do = f"DO $$ BEGIN EXECUTE format($s${statement}$s$, current_database()); END $$"
        assert replaced(place.after(do)) == f"settings of the database itself changed ({catalog})"


def test_a_login_trigger_of_the_template_fires_for_tests_and_not_for_us(make: Make) -> None:
    place = make("CREATE TABLE logins (who text)")
    if place.version < 170_000:
        pytest.skip("there are no triggers on logins before PostgreSQL 17")
    place.broker.close()
    place.ask_admin(
        "CREATE FUNCTION note_login() RETURNS event_trigger SECURITY DEFINER LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.logins VALUES (session_user); END $$;"
        "CREATE EVENT TRIGGER note ON login EXECUTE FUNCTION note_login();"
        "ALTER EVENT TRIGGER note ENABLE ALWAYS",
        place.template,
    )
    place.broker = Broker(place.admin, place.user, lambda: place.template, place.terms)
    for _ in range(3):
        with place.lent() as lease, lease.connect_psycopg(autocommit=True) as connection:
            assert connection.execute("SELECT who FROM logins").fetchall() == [("dataflow_test",)]
