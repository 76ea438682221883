"""Stores on the server that all tests share. Each test has sources of its own, and leaves no template behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.integration.server.conftest import make_cache
from tests.waiting import LIMIT_S, wait_until

from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import lease_database, stop_server
from dataflow.testing.server.protocol import ADMIN_DATABASE, TEST_ROLE
from dataflow.testing.template import databases
from dataflow.testing.template.files import SqlFiles
from dataflow.testing.template.function import PythonFunction
from dataflow.testing.template.source import SchemaSource
from dataflow.testing.template.steps import Steps
from dataflow.testing.template.store import TemplateInfo, TemplateStore


class Workshop:
    """What one test works with.

    :ivar token: in the description of each of its sources, by which its templates are found again.
    """

    def __init__(self, admin: Dsn, builder: Dsn, folder: Path) -> None:
        self.admin = admin
        self.builder = builder
        self.folder = folder
        self.token = f"schema_{secrets.token_hex(6)}"
        self.copies: list[str] = []
        self._stores: list[TemplateStore] = []
        self._processes: list[subprocess.Popen[str]] = []

    def store(self, admin: Dsn | None = None, builder: Dsn | None = None) -> TemplateStore:
        store = TemplateStore(admin or self.admin, builder or self.builder)
        self._stores.append(store)
        return store

    def sql(self, text: str, name: str = "") -> SqlFiles:
        """A source that no other test has."""
        path = self.folder / f"{self.token}{name}.sql"
        path.write_text(f"-- {self.token}\n{text}")
        return SqlFiles(path)

    def function(self, body: str, first: str = "def make(connection):") -> Steps:
        """A function in a module of its own; `body` may use `folder` and what it imports."""
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        module = self.folder / f"{self.token}.py"
        module.write_text(
            "import asyncio, json, os, pathlib, time\n"
            f"folder = pathlib.Path({str(self.folder)!r})\n\n{first}\n{lines}"
        )
        return self.steps()

    def steps(self) -> Steps:
        return Steps(PythonFunction(f"{self.token}:make", rootdir=self.folder))

    def templates(self) -> dict[str, TemplateInfo]:
        """Those of this test, as others see them."""
        with closing(TemplateStore(self.admin, self.builder)) as store:
            found = store.templates()
        return {template.name: template for template in found if self.token in (template.description or "")}

    def ensure(self, source: SchemaSource, limit_s: float = LIMIT_S) -> str:
        """The name of its template, which this process uses until the test is over."""
        return self.store().ensure(source, limit_s).name

    def rows(self, name: str, query: str) -> list[tuple[object, ...]]:
        """What `query` says in a fresh copy of a template."""
        copy = f"tdd_{secrets.token_hex(6)}"
        with self.connect() as connection:
            self.copies.append(copy)
            databases.create(connection, copy, self.builder.user or "", name)
        with self.connect(copy) as connection:
            return connection.execute(query).fetchall()

    def connect(self, database: str | None = None) -> psycopg.Connection:
        return psycopg.connect(self.admin.with_database(database or ADMIN_DATABASE).url(), autocommit=True)

    def answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def ask(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self.connect() as connection:
            return connection.execute(query, values).fetchall()

    def process(self, body: str, **environment: str) -> subprocess.Popen[str]:
        """Another process, in which `store` and `source` are a store and this test's function."""
        program = (
            "import json, os, signal, sys, time\n"
            # Who starts a suite in the background of a shell has it ignore this signal.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from pathlib import Path\n"
            "from dataflow.testing.dsn import Dsn\n"
            "from dataflow.testing.template.function import PythonFunction\n"
            "from dataflow.testing.template.steps import Steps\n"
            "from dataflow.testing.template.store import TemplateStore\n"
            f"store = TemplateStore(Dsn.parse({self.admin.url()!r}), Dsn.parse({self.builder.url()!r}))\n"
            f"source = Steps(PythonFunction({self.token + ':make'!r}, rootdir=Path({str(self.folder)!r})))\n"
            f"def say(text): print(text, file=sys.stderr, flush=True)\n"
            f"{body}\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self._processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=LIMIT_S)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                self.kill(process)
            process.communicate()
        for store in self._stores:
            store.close()
        with self.connect() as connection:
            for copy in self.copies:
                databases.drop(connection, copy)
        wait_until(self._pruned, "the templates of this test can be dropped")

    def _pruned(self) -> bool:
        with closing(TemplateStore(self.admin, self.builder)) as store:
            names = [name for name, template in self.templates().items() if template.description]
            return all(pruned.dropped for pruned in store.prune(names=names)) if names else True


@pytest.fixture
def admin(admin_dsn: Dsn) -> Dsn:
    return admin_dsn.with_database(ADMIN_DATABASE)


@pytest.fixture
def workshop(admin: Dsn, tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(admin, replace(admin, user=TEST_ROLE), tmp_path)
    yield workshop
    workshop.close()
    with suppress(KeyError):
        del sys.modules[workshop.token]


def told(process: subprocess.Popen[str]) -> dict[str, object]:
    """The next line of a process, which is a JSON object."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    found: dict[str, object] = json.loads(line)
    return found


@contextmanager
def _own_server(folder: Path, setting: str = "") -> Iterator[Workshop]:
    cache = make_cache()
    options = cache.options()
    try:
        if setting:
            with closing(lease_database(options, what="tests")) as lease:
                with psycopg.connect(lease.admin_dsn.url(), autocommit=True) as connection:
                    connection.execute(f"ALTER SYSTEM SET {setting}".encode())
            stop_server(options, force=True)
        with closing(lease_database(options, what="tests")) as lease:
            workshop = Workshop(lease.admin_dsn.with_database(ADMIN_DATABASE), lease.dsn, folder)
            yield workshop
            workshop.close()
    finally:
        cache.stop_all()
        shutil.rmtree(cache.path)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Workshop]:
    """A server that no other test uses."""
    with _own_server(tmp_path) as workshop:
        yield workshop


@pytest.fixture
def server_with_prepared_transactions(tmp_path: Path) -> Iterator[Workshop]:
    """A server of its own that was told to keep prepared transactions."""
    with _own_server(tmp_path, "max_prepared_transactions = 5") as workshop:
        yield workshop
