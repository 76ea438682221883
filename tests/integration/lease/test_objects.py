"""Each kind of object that a schema may have: what must happen to it, and which way is taken."""

from __future__ import annotations

import pytest
from tests.integration.lease.conftest import BY_LOG, Make, Place, connect, in_place, replaced

from dataflow.testing.template import databases

RICH = """
CREATE SEQUENCE plain START 10;
SELECT nextval('plain'), nextval('plain');
CREATE SEQUENCE cached CACHE 50;
CREATE TABLE always (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED
);
INSERT INTO always (n) VALUES (1), (2), (3);
CREATE TABLE parted (at date, n int) PARTITION BY RANGE (at);
CREATE TABLE parted_2023 PARTITION OF parted FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT date '2023-12-20' + g, g FROM generate_series(1, 30) g;
CREATE TABLE parent (id int); CREATE TABLE child (extra int) INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 2);
CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE;
INSERT INTO a VALUES (1); INSERT INTO b VALUES (1, 1); UPDATE a SET b = 1;
CREATE TABLE top (id int PRIMARY KEY); CREATE TABLE below (id int REFERENCES top ON DELETE CASCADE);
INSERT INTO top SELECT generate_series(1, 5); INSERT INTO below SELECT generate_series(1, 5);
CREATE TABLE log (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES (TG_TABLE_NAME || TG_OP); RETURN NULL; END $$;
CREATE TABLE seen (id int); INSERT INTO seen VALUES (1), (2);
CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON seen FOR EACH ROW EXECUTE FUNCTION note();
CREATE TABLE stubborn (id int); INSERT INTO stubborn VALUES (1);
CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON stubborn FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE stubborn ENABLE ALWAYS TRIGGER t;
CREATE TABLE ruled (id int); INSERT INTO ruled VALUES (1);
CREATE RULE keep AS ON DELETE TO ruled DO INSTEAD INSERT INTO log VALUES ('kept');
CREATE TABLE secret (who text); INSERT INTO secret VALUES (current_user), ('other');
ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE secret FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON secret USING (who = current_user);
CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM seen;
CREATE TABLE "quo;ted 'ta""ble {0} %s" ("co lumn" serial); INSERT INTO "quo;ted 'ta""ble {0} %s" VALUES (DEFAULT);
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE twins (n int); INSERT INTO twins VALUES (1), (1), (1);
CREATE TABLE bare (n int);
SELECT lo_from_bytea(4711, 'large');
"""
UNLOGGED = """
CREATE UNLOGGED TABLE cache (id serial, v text); INSERT INTO cache (v) VALUES ('a'), ('b');
CREATE UNLOGGED SEQUENCE counting;
"""


@pytest.fixture(scope="module")
def rich(make_for_module: Make) -> Place:
    return make_for_module(RICH)


def back(table: str, kilobytes: int = 8, why: str = "rows of the template were changed") -> str:
    return f"put all rows of public.{table} back ({kilobytes} kB): {why}"


@pytest.mark.parametrize(
    ("statement", "plan"),
    [
        ("SELECT nextval('plain')", "set public.plain back to 11"),
        ("BEGIN; SELECT nextval('plain'); ROLLBACK", "set public.plain back to 11"),
        ("SELECT setval('plain', 3)", "set public.plain back to 11"),
        ("SELECT nextval('cached')", "set public.cached back to 1"),
        ("INSERT INTO always (n) VALUES (5)",
         "set public.always_id_seq back to 3; delete the rows at 1 places of public.always"),
        ("UPDATE always SET n = 7 WHERE id = 1", back("always")),
        ("INSERT INTO parted VALUES ('2023-05-05', 1)", "delete the rows at 1 places of public.parted_2023"),
        ("INSERT INTO parted VALUES ('2025-05-05', 1)", "delete the rows at 1 places of public.parted_rest"),
        ("UPDATE parted SET at = '2026-01-01' WHERE at = '2023-12-24'",
         back("parted_2023") + "; delete the rows at 1 places of public.parted_rest"),
        ("UPDATE parent SET id = 9", back("parent") + "; " + back("child")),
        ("DELETE FROM ONLY parent", back("parent")),
        ("UPDATE a SET b = NULL; DELETE FROM b; DELETE FROM a", back("a") + "; " + back("b")),
        ("DELETE FROM top WHERE id = 1", back("top") + "; " + back("below")),
        ("UPDATE seen SET id = 5 WHERE id = 1", back("seen") + "; delete the rows at 1 places of public.log"),
        ("DELETE FROM ruled", "delete the rows at 1 places of public.log"),
        ("UPDATE ruled SET id = 2", back("ruled")),
        ("DELETE FROM secret", back("secret")),
        ("DELETE FROM nothing", back("nothing")),
        ("DELETE FROM twins WHERE ctid = '(0,1)'", back("twins")),
        ("BEGIN; REFRESH MATERIALIZED VIEW sums; ROLLBACK", "nothing to do"),
        ("BEGIN; SELECT lo_from_bytea(0, 'x'); ROLLBACK", "nothing to do"),
        ("BEGIN; INSERT INTO stubborn VALUES (2); DELETE FROM stubborn; ROLLBACK", None),
    ],
)  # fmt: skip
def test_put_back_in_place(rich: Place, statement: str, plan: str | None) -> None:
    returned = rich.after(statement)
    if plan is not None:
        assert in_place(returned) == plan


def test_names_are_quoted_whatever_is_in_them(rich: Place) -> None:
    name = """public."quo;ted 'ta""ble {0} %s\""""
    assert f"delete the rows at 1 places of {name}" in in_place(
        rich.after(f"INSERT INTO {name} VALUES (DEFAULT)")
    )
    assert f"put all rows of {name} back" in in_place(rich.after(f'UPDATE {name} SET "co lumn" = 5'))


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("INSERT INTO stubborn VALUES (2)", "public.stubborn has triggers or rules that always fire"),
        ("DELETE FROM stubborn", "public.stubborn has triggers or rules that always fire"),
        ("REFRESH MATERIALIZED VIEW sums", "public.sums, which is no table, was rewritten"),
        ("SELECT lo_from_bytea(0, 'x')", "the schema changed (pg_largeobject_metadata)"),
        ("SELECT lo_put(4711, 0, 'X')", "the schema changed (pg_largeobject)"),
        ("SELECT lo_unlink(4711)", "the schema changed (pg_largeobject_metadata)"),
        ("ALTER SEQUENCE plain INCREMENT 5", "the schema changed (pg_sequence)"),
    ],
)
def test_replaced_by_a_fresh_copy(rich: Place, statement: str, reason: str) -> None:
    assert replaced(rich.after(statement)) == reason


def test_triggers_rules_and_policies_are_not_used_when_rows_are_put_back(rich: Place) -> None:
    """Or `log` would have rows then, rows of other roles would stay gone, and the rule would keep what came."""
    plan = in_place(
        rich.after("INSERT INTO seen VALUES (3)", "DELETE FROM secret", "INSERT INTO ruled VALUES (7)")
    )
    assert "delete the rows at 1 places of public.ruled" in plan


@BY_LOG
def test_unlogged_tables_and_sequences_leave_no_trace_and_are_put_back_always(make: Make) -> None:
    place = make(UNLOGGED)
    for statement in (
        "SELECT 1",
        "INSERT INTO cache (v) VALUES ('c')",
        "DELETE FROM cache",
        "UPDATE cache SET v = 'x'",
        "TRUNCATE cache RESTART IDENTITY",
        "SELECT nextval('counting'), nextval('cache_id_seq')",
    ):
        plan = in_place(place.after(statement))
        assert "put all rows of public.cache back (8 kB)" in plan
        assert "set public.counting back to 1" in plan


def test_a_sequence_whose_values_the_template_logged_ahead_is_set_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nextval` writes to the log once for 32 values, if no checkpoint comes: here the first leave no trace."""
    monkeypatch.setattr(databases, "_FILE_COPY_SINCE", 990_000)  # or making a copy would be a checkpoint
    place = make("CREATE SEQUENCE s; SELECT nextval('s')")
    with place.lent() as lease:
        place.run(lease, "SELECT nextval('s')")
    with place.lent() as lease, connect(lease.dsn) as connection:
        assert connection.execute("SELECT last_value FROM s").fetchone() == (1,)


def test_what_is_temporary_is_gone_with_its_session(rich: Place) -> None:
    plan = in_place(
        rich.after(
            "CREATE TEMP TABLE t (id serial PRIMARY KEY, v text DEFAULT 'x')",
            "INSERT INTO t DEFAULT VALUES",
            "CREATE TEMP TABLE brief ON COMMIT DROP AS SELECT * FROM seen",
            "CREATE TEMP VIEW v AS SELECT * FROM seen",
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT pg_advisory_lock(1)",
            "LISTEN news",
            "NOTIFY news",
        )
    )
    assert plan == "nothing to do"


def test_a_lock_or_a_notification_of_one_test_does_not_reach_the_next(rich: Place) -> None:
    rich.after("SELECT pg_advisory_lock(42)", "LISTEN news", "NOTIFY news")
    with rich.lent() as lease, lease.connect_psycopg(autocommit=True) as connection:
        assert connection.execute("SELECT pg_try_advisory_lock(42)").fetchone() == (True,)
        connection.execute("LISTEN news")
        assert list(connection.notifies(timeout=0)) == []


def test_replication_role_of_a_test_hides_nothing_from_the_log(rich: Place) -> None:
    returned = rich.after(
        "SET session_replication_role = replica", "DELETE FROM top WHERE id = 1", superuser=True
    )
    assert in_place(returned) == back("top")
