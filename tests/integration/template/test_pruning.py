"""Only what nobody uses is dropped, and what is kept says why."""

from __future__ import annotations

import pytest
from tests.integration.template.conftest import Workshop, told
from tests.waiting import LIMIT_S, wait_until

from dataflow.testing.template import databases
from dataflow.testing.template.pruning import Pruned
from dataflow.testing.template.store import TemplateStore

DAY_S = 86_400.0


def prune_one(store: TemplateStore, name: str, unused_for_s: float = 0.0) -> Pruned:
    (pruned,) = store.prune(unused_for_s, [name])
    assert pruned.name == name
    return pruned


def test_what_a_live_process_uses_is_kept_until_that_process_was_killed(workshop: Workshop) -> None:
    workshop.function("connection.execute('CREATE TABLE t ()')")
    process = workshop.process(
        "print(json.dumps({'name': store.ensure(source, 30.0).name}), flush=True); sys.stdin.readline()"
    )
    name = str(told(process)["name"])
    store = workshop.store()
    kept = prune_one(store, name)
    assert not kept.dropped
    assert kept.why.startswith(f"in use by process {process.pid}@")
    assert workshop.rows(name, "SELECT count(*) FROM t") == [(0,)]
    workshop.kill(process)
    wait_until(lambda: prune_one(store, name).dropped, "the server notices that the process has gone")
    assert workshop.templates() == {}
    assert prune_one(store, name) == Pruned(name, False, "there is no such template")


def test_what_this_store_uses_is_kept_until_it_is_closed(workshop: Workshop) -> None:
    store = workshop.store()
    name = store.ensure(workshop.sql("SELECT 1"), LIMIT_S).name
    assert prune_one(store, name) == Pruned(name, False, "in use by this process")
    store.close()
    wait_until(lambda: prune_one(workshop.store(), name).dropped, "the session of the store ends")


def test_what_was_used_lately_is_kept(workshop: Workshop) -> None:
    store = workshop.store()
    name = store.ensure(workshop.sql("SELECT 1"), LIMIT_S).name
    store.close()
    kept = prune_one(workshop.store(), name, DAY_S)
    assert not kept.dropped
    assert kept.why.startswith("used ")
    assert kept.why.endswith(" ago")
    _age(workshop, name, 2 * DAY_S)
    dropped = prune_one(workshop.store(), name, DAY_S)
    assert (dropped.dropped, dropped.why) == (True, "used 2 d ago")


def test_what_a_dead_builder_left_is_dropped_and_what_a_live_one_works_on_is_not(workshop: Workshop) -> None:
    workshop.function("connection.execute('BEGIN'); print(json.dumps({}), flush=True); time.sleep(600)")
    process = workshop.process("store.ensure(source, 600.0)")
    told(process)
    (name,) = workshop.templates()
    kept = prune_one(workshop.store(), name)
    assert not kept.dropped
    assert kept.why.startswith(f"being built by process {process.pid}@")
    workshop.kill(process)
    wait_until(
        lambda: prune_one(workshop.store(), name) == Pruned(name, True, "its builder had died"),
        "the server notices that the builder has gone",
    )
    assert workshop.templates() == {}


def test_a_database_with_such_a_name_but_without_our_note_is_not_touched(workshop: Workshop) -> None:
    name = "tdd_template_" + "0" * 15 + "1"
    with workshop.connect() as connection:
        workshop.copies.append(name)
        databases.create(connection, name, workshop.builder.user or "")
    kept = prune_one(workshop.store(), name)
    assert not kept.dropped
    assert "no note" in kept.why


def test_databases_of_others_are_not_even_looked_at(workshop: Workshop) -> None:
    assert prune_one(workshop.store(), "postgres") == Pruned("postgres", False, "there is no such template")


def test_what_cannot_be_dropped_stays_sealed_and_says_why(workshop: Workshop) -> None:
    """A session can be in a sealed database if it was opened before the seal."""
    store = workshop.store()
    name = store.ensure(workshop.sql("SELECT 1"), LIMIT_S).name
    store.close()
    with workshop.connect() as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        with workshop.connect(name):
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            kept = prune_one(workshop.store(), name)
    assert not kept.dropped
    assert f'database "{name}" is being accessed by other users' in kept.why
    (template,) = workshop.templates().values()
    assert template.ready


def test_a_build_drops_the_oldest_beyond_ten_and_what_dead_builders_left(own_server: Workshop) -> None:
    workshop = own_server
    names = []
    for number in range(11):
        store = workshop.store()
        names.append(store.ensure(workshop.sql(f"SELECT {number}"), LIMIT_S).name)
        store.close()
    assert set(workshop.templates()) == set(names)
    for number, name in enumerate(names):
        _age(workshop, name, (20 - number) * DAY_S)
    wait_until(lambda: all(not t.users for t in workshop.templates().values()), "the sessions have ended")
    workshop.function("print(json.dumps({}), flush=True); time.sleep(600)")
    process = workshop.process("store.ensure(source, 600.0)")
    told(process)
    workshop.kill(process)
    wait_until(lambda: all(not t.users for t in workshop.templates().values()), "the builder's session has ended")
    last = workshop.ensure(workshop.sql("SELECT 99"))
    # Twelve are finished: the two that were used longest ago go, and the half-built one.
    assert set(workshop.templates()) == {*names[2:], last}


def _age(workshop: Workshop, name: str, seconds: float) -> None:
    with workshop.connect() as connection:
        (found,) = [database for database in databases.databases(connection) if database.name == name]
        assert found.note is not None
        databases.annotate(connection, name, found.note._replace(used=found.note.used - seconds))


@pytest.mark.parametrize("names", [[], None])
def test_no_names_are_other_than_any_names(workshop: Workshop, names: list[str] | None) -> None:
    """An empty list of names must not drop everything."""
    store = workshop.store()
    name = store.ensure(workshop.sql("SELECT 1"), LIMIT_S).name
    seen = {pruned.name for pruned in workshop.store().prune(10 * 365 * DAY_S, names)}
    assert (name in seen) is (names is None)
