"""A template is built once, complete or not at all, sealed, and everybody's."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace

import psutil
import psycopg
import pytest
from tests.integration.template.conftest import Workshop, told
from tests.waiting import LIMIT_S, wait_until

from dataflow.testing.errors import SchemaFailed, ServerError, TemplateBusy
from dataflow.testing.template import databases
from dataflow.testing.template.files import SqlFiles
from dataflow.testing.template.naming import BUILDING, Note
from dataflow.testing.template.steps import EMPTY, Steps


def test_what_was_built_is_there_for_the_next_store(workshop: Workshop) -> None:
    source = workshop.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (7);")
    built = workshop.store().ensure(source, LIMIT_S)
    assert built.fingerprint == source.fingerprint()
    assert built.built_ms is not None
    assert built.built_ms > 0
    assert workshop.store().ensure(source, LIMIT_S) == built._replace(built_ms=None)
    assert workshop.rows(built.name, "SELECT n FROM t") == [(7,)]


def test_it_belongs_to_the_builder_and_so_does_what_is_in_it(workshop: Workshop) -> None:
    name = workshop.ensure(workshop.sql("CREATE TABLE t (n int)"))
    assert workshop.rows(name, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == [
        (workshop.builder.user,)
    ]


def test_another_content_is_another_template(workshop: Workshop) -> None:
    first = workshop.ensure(workshop.sql("SELECT 1"))
    assert workshop.ensure(workshop.sql("SELECT 2")) != first


def test_no_schema_is_a_schema(workshop: Workshop) -> None:
    """Its template is everybody's, so it is not dropped here."""
    name = workshop.ensure(EMPTY)
    assert workshop.rows(name, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_nobody_can_connect_to_a_template_not_even_the_superuser(workshop: Workshop) -> None:
    name = workshop.ensure(workshop.sql("SELECT 1"))
    for dsn in (workshop.admin, workshop.builder):
        with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
            psycopg.connect(dsn.with_database(name).url())
    assert workshop.ask("SELECT datistemplate, datallowconn FROM pg_database WHERE datname = %s", name) == [
        (True, False)
    ]


def test_six_processes_at_the_same_instant_build_once_and_get_the_same(workshop: Workshop) -> None:
    workshop.function(
        "with (folder / 'builds').open('a') as file: file.write('x')\n"
        "connection.execute('CREATE TABLE t (n int)')\n"
        "connection.execute('SELECT pg_sleep(0.3)')"
    )
    body = (
        "sys.stdin.readline(); t = store.ensure(source, 30.0, say); print(json.dumps(t._asdict())); store.close()"
    )
    processes = [workshop.process(body) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    templates = [told(process) for process in processes]
    assert len({template["name"] for template in templates}) == 1
    assert sum(template["built_ms"] is not None for template in templates) == 1
    assert (workshop.folder / "builds").read_text() == "x"


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(600)",
        # By default a server does not look whether its client lives; the embedded one does.
        "connection.execute('SET client_connection_check_interval = 0');"
        "connection.execute('SELECT pg_sleep(600)')",
    ],
    ids=["in Python", "in the server"],
)
def test_a_killed_builder_leaves_nothing_that_anybody_takes_for_a_template(workshop: Workshop, hang: str) -> None:
    workshop.function(
        "connection.execute('CREATE TABLE t (n int)')\n"
        "if os.environ.get('HANG'):\n"
        "    print(json.dumps({}), flush=True)\n"
        f"    {hang}\n"
        "connection.execute('INSERT INTO t VALUES (1)')"
    )
    process = workshop.process("store.ensure(source, 30.0)", HANG="1")
    told(process)
    (half_built,) = workshop.templates().values()
    assert half_built.name.startswith(BUILDING)
    assert not half_built.ready
    assert f"process {process.pid}@" in half_built.users[0]
    if "pg_sleep" in hang:  # the server goes on with it after its client was killed
        busy = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND state = 'active' AND query ~ 'pg_sleep'"
        wait_until(lambda: workshop.ask(busy, half_built.name), "the statement runs")
    workshop.kill(process)
    built = workshop.store().ensure(workshop.steps(), LIMIT_S)
    assert built.built_ms is not None
    assert list(workshop.templates()) == [built.name]
    assert workshop.rows(built.name, "SELECT n FROM t") == [(1,)]


def test_what_a_builder_left_that_was_killed_before_it_could_say_anything_is_dropped(workshop: Workshop) -> None:
    """Without a note nobody else may judge it; the next builder of the same template holds its lock."""
    source, name = built(workshop)
    wait_until(lambda: workshop.store().prune(names=[name])[0].dropped, "the session of the store ends")
    left = name.replace("template", "building") + "_0123"
    with workshop.connect() as connection:
        workshop.copies.append(left)
        databases.create(connection, left, workshop.builder.user or "")
    assert workshop.ensure(source) == name
    assert workshop.ask("SELECT 1 FROM pg_database WHERE datname = %s", left) == []


def test_who_waits_is_told_for_whom_at_once_and_not_for_ever(workshop: Workshop) -> None:
    workshop.function("print(json.dumps({}), flush=True); time.sleep(600)")
    process = workshop.process("store.ensure(source, 600.0)")
    told(process)
    said: list[str] = []
    with pytest.raises(TemplateBusy) as raised:
        workshop.store().ensure(workshop.steps(), 1.0, said.append)
    assert len(said) == 1
    assert f"which is being built by process {process.pid}@" in said[0]
    assert "waiting up to 1 s for the template database tdd_template_" in said[0]
    assert "was not ready within 1 s" in raised.value.what
    assert f"it is being built by process {process.pid}@" in raised.value.what
    assert workshop.token in raised.value.what


def test_a_schema_that_fails_leaves_nothing_and_can_be_corrected(workshop: Workshop) -> None:
    store = workshop.store()
    with pytest.raises(SchemaFailed, match="line 2: syntax error"):
        store.ensure(workshop.sql("CREATE TABEL t ()"), LIMIT_S)
    assert workshop.templates() == {}
    assert store.ensure(workshop.sql("CREATE TABLE t ()"), LIMIT_S).built_ms is not None


def test_the_lock_of_a_failed_builder_is_free(workshop: Workshop) -> None:
    source = workshop.sql("SELECT 1/0")
    for _ in range(2):
        with pytest.raises(SchemaFailed, match="division by zero"):
            workshop.store().ensure(source, LIMIT_S)


def test_an_error_of_a_source_that_is_not_ours_is_told_with_its_name(workshop: Workshop) -> None:
    class Mine:
        def fingerprint(self) -> str:
            return workshop.token

        def describe(self) -> str:
            return f"mine {workshop.token}"

        def apply(self, database: object, limit_s: float) -> None:
            raise KeyError("lost")

    with pytest.raises(SchemaFailed, match=f"mine {workshop.token}: KeyError: 'lost'") as raised:
        workshop.store().ensure(Mine(), LIMIT_S)
    assert isinstance(raised.value.__cause__, KeyError)
    assert workshop.templates() == {}


def test_what_changes_while_it_is_built_is_no_template_of_what_it_was(workshop: Workshop) -> None:
    source = workshop.function("file = folder / (__name__ + '.py'); file.write_text(file.read_text() + '#')")
    with pytest.raises(SchemaFailed, match="what it is made from changed meanwhile"):
        workshop.store().ensure(source, LIMIT_S)
    assert workshop.templates() == {}


def test_copies_count_sequences_from_where_they_were_left(workshop: Workshop) -> None:
    """A copy must begin with no values written ahead to the log: the log tells whether a test used a sequence."""
    name = workshop.ensure(
        workshop.sql(
            'CREATE SCHEMA "a \'b"; CREATE SEQUENCE "a \'b"."C"; CREATE SEQUENCE untouched START 5;'
            "CREATE SEQUENCE down INCREMENT -1; SELECT nextval('down');"
            "CREATE TABLE t (n int GENERATED ALWAYS AS IDENTITY, s serial);"
            "INSERT INTO t (s) VALUES (DEFAULT), (DEFAULT); SELECT setval('untouched', 9, false);"
            "SELECT nextval('\"a ''b\".\"C\"')"
        )
    )
    sequences = {
        '"a \'b"."C"': (1, 0, True),
        "untouched": (9, 0, False),
        "down": (-1, 0, True),
        "t_n_seq": (2, 0, True),
        "t_s_seq": (2, 0, True),
    }
    query = " UNION ALL ".join(
        f"SELECT {i}, last_value, log_cnt, is_called FROM {s}" for i, s in enumerate(sequences)
    )
    expected = [(number, *values) for number, values in enumerate(sequences.values())]
    assert sorted(workshop.rows(name, query)) == expected


def test_copies_are_vacuumed_and_analysed(workshop: Workshop) -> None:
    name = workshop.ensure(workshop.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n"))
    query = "SELECT reltuples::int, relallvisible > 0, age(relfrozenxid) < 1000 FROM pg_class WHERE relname = 't'"
    assert workshop.rows(name, query) == [(1000, True, True)]
    assert workshop.rows(name, "SELECT count(*) FROM pg_stats WHERE tablename = 't'") == [(1,)]


def test_sessions_that_the_schema_left_open_are_ended(workshop: Workshop) -> None:
    """A pool that nobody closed would keep the template from ever being copied."""
    source = workshop.function(
        "import psycopg\n"
        "global kept\n"
        "kept = psycopg.connect(url, autocommit=True); kept.execute('CREATE TABLE t (n int)')",
        "def make(url):",
    )
    name = workshop.ensure(source)
    assert workshop.rows(name, "SELECT count(*) FROM t") == [(0,)]
    kept = sys.modules[workshop.token].kept
    with pytest.raises(psycopg.OperationalError):
        kept.execute("SELECT 1")
    kept.close()


def test_one_role_that_may_create_databases_is_enough(workshop: Workshop) -> None:
    """As on a server that somebody else runs."""
    store = workshop.store(admin=workshop.builder)
    built = store.ensure(workshop.sql("CREATE TABLE t (n serial); INSERT INTO t VALUES (DEFAULT)"), LIMIT_S)
    assert workshop.rows(built.name, "SELECT last_value, log_cnt FROM t_n_seq") == [(1, 0)]
    store.close()
    (pruned,) = workshop.store(admin=workshop.builder).prune(names=[built.name])
    assert pruned.dropped, pruned.why


def built(workshop: Workshop) -> tuple[SqlFiles, str]:
    """A source, and the name of its template, which nobody uses."""
    source = workshop.sql("SELECT 1")
    store = workshop.store()
    name = store.ensure(source, LIMIT_S).name
    store.close()
    return source, name


def test_a_template_that_was_opened_by_hand_is_built_anew(workshop: Workshop) -> None:
    source, name = built(workshop)
    with workshop.connect() as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    with workshop.connect(name) as connection:
        connection.execute("CREATE TABLE added_by_hand ()")
    anew = workshop.store().ensure(source, LIMIT_S)
    assert anew.built_ms is not None
    assert workshop.rows(name, "SELECT to_regclass('added_by_hand')") == [(None,)]


def test_a_template_without_its_note_is_built_anew(workshop: Workshop) -> None:
    source, name = built(workshop)
    with workshop.connect() as connection:
        connection.execute(f"COMMENT ON DATABASE {name} IS 'mine'".encode())
    assert workshop.store().ensure(source, LIMIT_S).built_ms is not None


def test_templates_outlive_a_server_that_was_killed_but_those_with_unlogged_tables_are_built_anew(
    own_server: Workshop,
) -> None:
    """After a crash PostgreSQL empties unlogged tables, and nothing else."""
    workshop = own_server
    seed = "TABLE t AS SELECT generate_series(1, 7) AS n"
    logged, unlogged = (
        workshop.sql(f"CREATE {seed}", "_logged"),
        workshop.sql(f"CREATE UNLOGGED {seed}", "_unlogged"),
    )
    store = workshop.store()
    names = [store.ensure(source, LIMIT_S).name for source in (logged, unlogged)]
    psutil.Process(store.connection.info.backend_pid).parent().kill()
    store.close()
    wait_until(workshop.answers, "the keeper starts the server again")
    store = workshop.store()
    built = [store.ensure(source, LIMIT_S) for source in (logged, unlogged)]
    assert [template.name for template in built] == names
    assert [template.built_ms is None for template in built] == [True, False]
    for name in names:
        assert workshop.rows(name, "SELECT count(*) FROM t") == [(7,)]


def test_one_that_was_opened_by_hand_is_not_taken_from_who_is_in_it(workshop: Workshop) -> None:
    source, name = built(workshop)
    with workshop.connect() as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    inside = psycopg.connect(workshop.admin.with_database(name).url(), application_name="a curious person")
    with inside, pytest.raises(TemplateBusy, match="a curious person") as raised:
        workshop.store().ensure(source, LIMIT_S)
    assert "is not as it was built" in raised.value.what
    assert workshop.store().ensure(source, LIMIT_S).built_ms is not None


def test_a_store_whose_session_broke_goes_on_and_keeps_its_right(workshop: Workshop) -> None:
    store = workshop.store()
    name = store.ensure(workshop.sql("SELECT 1"), LIMIT_S).name
    before = store.connection.info.backend_pid
    workshop.ask("SELECT pg_terminate_backend(%s, 20000)", before)
    assert store.connection.info.backend_pid != before
    (pruned,) = workshop.store().prune(names=[name])
    assert (pruned.dropped, pruned.why[:10]) == (False, "in use by ")


def test_a_builder_whose_session_broke_does_not_finish_what_others_may_have_begun(workshop: Workshop) -> None:
    source = workshop.function(
        "connection.execute(\"SELECT pg_terminate_backend(pid, 20000) FROM pg_locks WHERE locktype = 'advisory'"
        " AND classid = 1952736322 AND pid <> pg_backend_pid() AND database ="
        f" (SELECT oid FROM pg_database WHERE datname = 'tdd_space_{workshop.token}')\")"
    )
    # It ends all builders in its lock space, and so has one of its own.
    with workshop.connect() as connection:
        workshop.copies.append(f"tdd_space_{workshop.token}")
        databases.create(connection, workshop.copies[-1], workshop.builder.user or "")
    store = workshop.store(admin=workshop.admin.with_database(workshop.copies[-1]), builder=workshop.admin)
    with pytest.raises(ServerError, match=r"terminating connection|connection is lost|closed"):
        store.ensure(source, LIMIT_S)
    assert workshop.templates() == {}


def test_a_closed_store_says_so(workshop: Workshop) -> None:
    store = workshop.store()
    store.close()
    store.close()
    with pytest.raises(ServerError, match="store of templates is closed"):
        store.ensure(EMPTY, LIMIT_S)


def test_a_forked_child_leaves_its_parents_session_alone(workshop: Workshop) -> None:
    workshop.function("pass")
    process = workshop.process(
        "name = store.ensure(source, 30.0).name\n"
        "backend = store.connection.info.backend_pid\n"
        "if os.fork() == 0:\n"
        "    assert store.connection.info.backend_pid != backend\n"
        "    store.close()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "same = store.connection.info.backend_pid == backend\n"
        "print(json.dumps({'same': same, 'name': name}), flush=True)\n"
        "sys.stdin.readline()"
    )
    answer = told(process)
    assert answer["same"] is True
    (pruned,) = workshop.store().prune(names=[str(answer["name"])])
    assert not pruned.dropped


def test_stores_with_other_lock_spaces_or_owners_have_other_templates(workshop: Workshop) -> None:
    """They would not see each other's locks, or could not use each other's tables."""
    source = workshop.sql("SELECT 1")
    other_owner = workshop.store(builder=workshop.admin).ensure(source, LIMIT_S)
    with workshop.connect() as connection:
        space = f"tdd_space_{workshop.token}"
        workshop.copies.append(space)
        databases.create(connection, space, workshop.builder.user or "")
    elsewhere = workshop.store(admin=workshop.admin.with_database(space))
    other_space = elsewhere.ensure(source, LIMIT_S)
    here = workshop.ensure(source)
    assert len({other_owner.name, other_space.name, here}) == 3
    elsewhere.close()
    (pruned,) = workshop.store().prune(names=[other_space.name])
    assert (pruned.dropped, pruned.why) == (
        False,
        f"its users are known in the database '{space}' only, and we are in another one",
    )
    (pruned,) = workshop.store(admin=workshop.admin.with_database(space)).prune(names=[other_space.name])
    assert pruned.dropped, pruned.why


def test_using_a_template_is_noted(workshop: Workshop) -> None:
    source = workshop.sql("SELECT 1")
    name = workshop.ensure(source)
    with workshop.connect() as connection:
        (found,) = [database for database in databases.databases(connection) if database.name == name]
        assert isinstance(found.note, Note)
        databases.annotate(connection, name, found.note._replace(used=found.note.used - 3600))
    workshop.ensure(source)
    used = workshop.templates()[name].used
    assert used is not None
    assert used >= found.note.used


def test_what_is_listed(workshop: Workshop) -> None:
    store = workshop.store()
    source = Steps(workshop.sql("CREATE TABLE t (n int)"), EMPTY)
    built = store.ensure(source, LIMIT_S)
    (here,) = [template for template in store.templates() if template.name == built.name]
    assert here.ready
    assert here.description == f"{workshop.token}.sql, then no schema"
    assert here.users == ("this process",)
    assert here.built_ms == built.built_ms
    assert here.size is not None
    assert here.size > 1_000_000
    (seen_by_others,) = workshop.templates().values()
    assert len(seen_by_others.users) == 1
    assert "@" in seen_by_others.users[0]


def test_it_works_where_a_loop_runs_and_needs_no_driver_before(workshop: Workshop) -> None:
    workshop.function("await connection.execute('CREATE TABLE t (n int)')", "async def make(connection):")
    process = workshop.process(
        "assert not {'psycopg', 'asyncpg', 'asyncio'} & set(sys.modules)\n"
        "import asyncio\n"
        "async def main(): print(json.dumps(store.ensure(source, 30.0)._asdict()))\n"
        "asyncio.run(main()); store.close()"
    )
    assert told(process)["built_ms"]


def test_without_psycopg_the_way_out_is_told(workshop: Workshop) -> None:
    workshop.function("pass")
    process = workshop.process("sys.modules['psycopg'] = None\nstore.ensure(source, 30.0)")
    _, error = process.communicate(timeout=LIMIT_S)
    assert "databases for tests need psycopg" in error
    assert 'pip install "psycopg[binary]"' in error


def test_a_server_that_is_not_there_is_told_without_the_password(workshop: Workshop) -> None:
    gone = replace(workshop.admin, host=str(workshop.folder), password="s3cret")
    with pytest.raises(ServerError, match="no connection to postgresql://postgres:") as raised:
        workshop.store(admin=gone).ensure(EMPTY, LIMIT_S)
    assert "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert isinstance(raised.value.option, str)


def test_interrupted_by_hand_nothing_is_left(workshop: Workshop) -> None:
    workshop.function("print(json.dumps({}), flush=True); connection.execute('SELECT pg_sleep(600)')")
    process = workshop.process("store.ensure(source, 600.0)")
    told(process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=LIMIT_S)
    assert "KeyboardInterrupt" in error
    assert workshop.templates() == {}
