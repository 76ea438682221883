"""`dataflow-tdd templates`: what is there, who uses it, and dropping it by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from tests.integration.server.conftest import Cache, make_cache
from tests.integration.template.conftest import Workshop
from tests.waiting import LIMIT_S, wait_until

from dataflow.testing.cli import main
from dataflow.testing.server.embedded import server_dsn, stop_server
from dataflow.testing.template.store import TemplateStore

Run = pytest.CaptureFixture[str]


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """A cache in which no server was ever started."""
    cache = make_cache()
    monkeypatch.setenv("DATAFLOW_TDD_CACHE_DIR", str(cache.path))
    yield cache
    cache.stop_all()
    shutil.rmtree(cache.path)


@pytest.mark.parametrize("words", [["list"], ["prune"], ["prune", "--all"]])
def test_no_server_is_started_only_to_find_that_it_has_none(cache: Cache, capsys: Run, words: list[str]) -> None:
    assert main(["templates", *words]) == 0
    assert capsys.readouterr().out == "no server runs, and so no templates\n"
    assert not cache.processes()
    assert not (cache.path / "servers").exists()


def test_a_template_is_listed_kept_while_it_is_used_and_then_dropped(workshop: Workshop, capsys: Run) -> None:
    store = workshop.store()
    name = store.ensure(workshop.sql("SELECT 1"), LIMIT_S).name
    assert main(["templates", "list"]) == 0
    (shown,) = [text for text in capsys.readouterr().out.split("\ntdd_") if name.removeprefix("tdd_") in text]
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0].endswith(f"{name.removeprefix('tdd_')}: {workshop.token}.sql")
    assert lines[1].startswith("built ")
    assert " ago, in " in lines[1]
    assert lines[2].startswith("used ")
    assert lines[3].startswith("size ")
    assert f"used by process {os.getpid()}@" in lines[4]
    assert main(["templates", "prune", name]) == 1
    assert f"{name} is kept: in use by process {os.getpid()}@" in capsys.readouterr().out
    store.close()
    wait_until(lambda: not workshop.templates()[name].users, "the session of the store ends")
    assert main(["templates", "prune", "--unused-days", "1", name]) == 1
    assert f"{name} is kept: used " in capsys.readouterr().out
    assert main(["templates", "prune", name]) == 0
    assert capsys.readouterr().out.startswith(f"{name} is dropped: used ")
    assert main(["templates", "prune", name]) == 1
    assert capsys.readouterr().out == f"{name} is kept: there is no such template\n"


def test_those_of_a_server_that_has_stopped_are_found(own_server: Workshop, cache: Cache, capsys: Run) -> None:
    assert main(["server", "start"]) == 0
    capsys.readouterr()
    admin = server_dsn(cache.options(), admin=True)
    assert admin is not None
    admin = admin.with_database("postgres")
    store = TemplateStore(admin, admin)
    name = store.ensure(own_server.sql("SELECT 1"), LIMIT_S).name
    store.close()
    stop_server(cache.options(), force=True)
    assert main(["templates", "list"]) == 0
    assert name in capsys.readouterr().out
    assert main(["templates", "prune"]) == 0
    assert capsys.readouterr().out.startswith(f"{name} is kept: used ")
    assert main(["templates", "prune", "--all"]) == 0
    assert capsys.readouterr().out.startswith(f"{name} is dropped: used ")
    for words in ("list", "prune"):
        assert main(["templates", words]) == 0
        assert capsys.readouterr().out == "there are no templates\n"


def test_those_of_a_server_that_was_named(
    own_server: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: Run
) -> None:
    database = own_server.builder.with_database("shop_test")
    with own_server.connect() as connection:
        connection.execute("CREATE DATABASE shop_test OWNER dataflow_test")
    monkeypatch.delenv("DATAFLOW_TDD_SERVER")
    monkeypatch.setenv("TEST_DATABASE_URL", database.url())
    store = own_server.store(database, database)
    name = store.ensure(own_server.sql("SELECT 1"), LIMIT_S).name
    assert main(["templates", "list"]) == 0
    assert name in capsys.readouterr().out
    store.close()
    wait_until(lambda: main(["templates", "prune", name]) == 0, "the session of the store ends")


def test_a_database_that_may_be_a_real_one_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: Run) -> None:
    monkeypatch.delenv("DATAFLOW_TDD_SERVER")
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql://localhost:1/shop")
    assert main(["templates", "list"]) == 1
    assert "'shop'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--unused-days", "x"], ["--unused-days", "-1"], ["--all", "--unused-days", "1"]]
)
def test_arguments_that_make_no_sense_are_refused(words: list[str], capsys: Run) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["templates", "prune", *words])
    assert raised.value.code == 2
    assert "usage: dataflow-tdd templates prune" in capsys.readouterr().err
