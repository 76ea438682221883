"""Django tests that commit: ours beside pytest-django's own, on the same server, in turn.

Measured is what pytest calls set-up and tear-down of a test (`--durations` shows the same), and the test itself,
which inserts two rows by Django's ORM. BENCH_TABLES: how many tables the project has besides Django's own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median

from benchmarks.setting import options, pytest
from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import lease_database

TABLES = [int(n) for n in os.environ.get("BENCH_TABLES", "5,50").split(",")]
TESTS = int(os.environ.get("BENCH_TESTS", "100"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "2"))
KINDS = ("rolled back", "commits")

SETTINGS = """
import os
SECRET_KEY = "benchmark"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "bench"}}
for key in ("HOST", "PORT", "USER", "PASSWORD"):
    DATABASES["default"][key] = os.environ.get(f"BENCH_{key}", "")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""
TEST = """
import pytest
from shop.models import T0, T1

def work():
    first = T0.objects.create(name="a")
    T1.objects.create(name="b", parent=first)

@pytest.mark.django_db
@pytest.mark.parametrize("n", range({tests}))
def test_rolled_back(n):
    work()

@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("n", range({tests}))
def test_commits(n):
    work()
"""
CONFTEST = """
import json
import os

TIMES = {}

def pytest_runtest_logreport(report):
    kind = "commits" if "test_commits" in report.nodeid else "rolled back"
    TIMES.setdefault(kind, {}).setdefault(report.nodeid, {})[report.when] = report.duration * 1e3

def pytest_sessionfinish(session):
    with open(os.environ["BENCH_TIMES"], "w") as file:
        json.dump({kind: list(times.values()) for kind, times in TIMES.items()}, file)
"""


def run(folder: Path) -> None:
    lease = lease_database(options(folder), what="benchmark")
    try:
        print(
            f"PostgreSQL {lease.version}, UNIX socket, fsync off; {TESTS} tests of each kind, {ROUNDS} rounds in "
            "turn; ms, median of set-up + tear-down, without the first three; and with the test itself"
        )
        for tables in TABLES:
            _case(folder, lease.admin_dsn, tables)
    finally:
        lease.close()


def _case(folder: Path, dsn: Dsn, tables: int) -> None:
    project = folder / f"project{tables}"
    _write(project, tables)
    ours: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    own: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for found, more in ((ours, {"DATAFLOW_TDD_DJANGO": "true"}), (own, _address(dsn))):
            for kind, times in _measured(folder, project, more).items():
                found[kind] += times[3:]
    print(f"{tables} tables")
    for kind in KINDS:
        around = [median(time["setup"] + time["teardown"] for time in found[kind]) for found in (ours, own)]
        whole = [median(sum(time.values()) for time in found[kind]) for found in (ours, own)]
        print(f"  {kind:<12} {_compared(around)}   whole test: {_compared(whole)}")


def _compared(times: list[float]) -> str:
    return f"ours {times[0]:7.2f}  pytest-django {times[1]:7.2f}  ratio {times[0] / times[1]:5.3f}"


def _measured(folder: Path, project: Path, more: dict[str, str]) -> dict[str, list[dict[str, float]]]:
    times = project / "times.json"
    environment = {"DJANGO_SETTINGS_MODULE": "settings", "BENCH_TIMES": str(times), **more}
    plugins = ("-p", "pytest_django.plugin", "--rootdir", str(project), str(project))
    pytest(folder, *plugins, "-c", str(project / "pytest.ini"), **environment)
    found: dict[str, list[dict[str, float]]] = json.loads(times.read_text())
    return found


def _address(dsn: Dsn) -> dict[str, str]:
    return {
        "BENCH_HOST": dsn.host,
        "BENCH_PORT": str(dsn.port),
        "BENCH_USER": dsn.user or "",
        "BENCH_PASSWORD": dsn.password or "",
    }


def _write(project: Path, tables: int) -> None:
    (project / "shop").mkdir(parents=True)
    parent = '    parent = models.ForeignKey("shop.T{}", models.CASCADE, null=True)\n'
    models = "".join(
        f"class T{number}(models.Model):\n    name = models.TextField(unique=True)\n"
        f"    created = models.DateTimeField(auto_now=True)\n{parent.format(number - 1) if number else ''}\n"
        for number in range(tables)
    )
    files = {
        "settings.py": SETTINGS,
        "conftest.py": CONFTEST,
        "pytest.ini": "[pytest]\npythonpath = .\nasyncio_default_fixture_loop_scope = function\n",
        "test_it.py": TEST.format(tests=TESTS + 3),
        "shop/__init__.py": "",
        "shop/models.py": f"from django.db import models\n\n{models}",
    }
    for name, text in files.items():
        (project / name).write_text(text)
