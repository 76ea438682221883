"""Runs tests that others wrote, on our server and in the sandbox: ``make test-compat``, or of some libraries only
``python tests/compat/run.py asyncpg``.

Source distributions, their tests and the libraries themselves go to one directory (``.cache/compat``, or
COMPAT_DIRECTORY) with a virtual environment of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import psycopg
from comparing import Difference, Outcome, compared, counted, read_known, read_outcomes
from libraries import LIBRARIES, Library
from psycopg import sql

from dataflow.testing.dsn import Dsn
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database, stop_server

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Seconds: for one test, which is then interrupted, and for all of a library's, which are then killed.
TEST_LIMIT_S, RUN_LIMIT_S, INSTALL_LIMIT_S = 30, 900, 900


def main(names: list[str]) -> int:
    directory = Path(os.environ.get("COMPAT_DIRECTORY", ROOT / ".cache" / "compat"))
    directory.mkdir(parents=True, exist_ok=True)
    chosen = [library for library in LIBRARIES if not names or library.name in names]
    rows, failed = [], False
    for library in chosen:
        python = _environment(directory, library)
        place = _unpacked(directory, library)
        for way in library.ways:
            with _server() as admin:
                outcomes, took_s, ended = _run(directory, python, place, library, way, admin)
            known = read_known((HERE / "known.toml").read_text(), library.name, way)
            difference = compared(outcomes, known)
            failed = failed or bool(difference.new) or not ended or not outcomes
            rows.append(_row(library, way, outcomes, took_s))
            _tell(library, way, difference, ended)
    print("\nlibrary version  run  passed failed skipped  time")
    print("\n".join(rows))
    return int(failed)


def _environment(directory: Path, library: Library) -> Path:
    """A virtual environment of the library, with it and what its tests need."""
    home = directory / f"venv-{library.name}"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    needs = [*library.needs, "pytest", "pytest-timeout", "psycopg[binary]", f"{library.name}=={library.version}"]
    done = home / "installed"
    if not done.exists() or done.read_text() != "\n".join(needs):
        _pip(python, "install", f"{ROOT}[embedded,memory]", *needs)
        # The plugin comes from the tree, so that it is never an old one.
        _pip(python, "uninstall", "--yes", "dataflow-tdd")
        done.write_text("\n".join(needs))
    return python


def _unpacked(directory: Path, library: Library) -> Path:
    """The library's tests, without the library itself, which is installed."""
    place = directory / f"{library.name}-{library.version}"
    if not place.exists():
        python = directory / f"venv-{library.name}" / "bin" / "python"
        what = f"{library.name}=={library.version}"
        _pip(python, "download", "--no-deps", "--no-binary", library.name, "--dest", str(directory), what)
        with tarfile.open(next(directory.glob(f"{library.name}-{library.version}.tar.gz"))) as archive:
            head = f"{library.name}-{library.version}/"
            wanted = [
                member
                for member in archive.getmembers()
                if member.name.removeprefix(head).startswith(library.members)
            ]
            archive.extractall(directory, wanted, filter="data")
    return place


def _pip(python: Path, *arguments: str) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, check=True, timeout=INSTALL_LIMIT_S)


@contextmanager
def _server() -> Iterator[Dsn]:
    """A new server that nobody else uses: tests of drivers end sessions, and leave roles and databases."""
    with tempfile.TemporaryDirectory(prefix="df-") as made:
        Path(made).chmod(0o755)  # as root, the server runs as another user, who must pass through
        options = EmbeddedOptions(cache_dir=Path(made))
        lease = lease_database(options, what="tests of other libraries")
        try:
            yield lease.admin_dsn
        finally:
            lease.close()
            stop_server(options, force=True)


def _run(
    directory: Path, python: Path, place: Path, library: Library, way: str, admin: Dsn
) -> tuple[dict[str, Outcome], float, bool]:
    """Outcomes by test, seconds, and whether the run came to its end."""
    database = library.database or f"test_{library.name}_{way}"
    _make_database(admin, library, database)
    dsn = admin.with_database(database)
    values = {"url": dsn.url(), "host": dsn.host, "port": str(dsn.port), "database": database}
    written = directory / f"{library.name}-{way}.jsonl"
    written.unlink(missing_ok=True)
    given = {name: value.format(**values) for name, value in library.environment.items()}
    environment = (
        os.environ
        | given
        | {
            "COMPAT_OUTCOMES": str(written),
            "PYTHONPATH": f"{HERE / 'plugins'}{os.pathsep}{ROOT / 'src'}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "TEST_DATABASE_URL": dsn.url(),
            "DATAFLOW_TDD_ALLOW_DATABASE": database,
            "DATAFLOW_TDD_ESCAPES": "warn",  # some commit on purpose beside the connections that they are given
        }
    )
    plugins = ["compat_outcomes", "pytest_timeout", *library.loads]
    left_out: list[str] = []
    if way == "sandbox" and library.plugin:
        plugins.append(library.plugin)
        left_out = [part for name in library.not_in_sandbox for part in ("--deselect", name)]
    command: list[str | Path] = [
        python,
        "-s",
        "-P",
        "-m",
        "pytest",
        "-q",
        "--tb=native",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--timeout", str(TEST_LIMIT_S)]
    command += [part for plugin in plugins for part in ("-p", plugin)]
    command += [option.format(**values) for option in library.options]
    started, ended = monotonic(), True
    log = directory / f"{library.name}-{way}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *left_out, *library.tests], cwd=place, env=environment, stdout=file, stderr=file
        )
        try:
            process.wait(RUN_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ended = False
    lines = written.read_text().splitlines() if written.exists() else []
    return read_outcomes(lines), monotonic() - started, ended


def _make_database(admin: Dsn, library: Library, name: str) -> None:
    with psycopg.connect(admin.url(), autocommit=True) as connection:
        if library.database is None:
            quoted = sql.Identifier(name)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(quoted))
    with psycopg.connect(admin.with_database(name).url(), autocommit=True) as connection:
        for kind, things in (("EXTENSION", library.extensions), ("SCHEMA", library.schemas)):
            for thing in things:
                connection.execute(sql.SQL("CREATE {} {}").format(sql.SQL(kind), sql.Identifier(thing)))


def _row(library: Library, way: str, outcomes: dict[str, Outcome], took_s: float) -> str:
    passed, failed, skipped = counted(outcomes)
    return f"{library.name} {library.version}  {way}  {passed} {failed} {skipped}  {took_s:.0f} s"


def _tell(library: Library, way: str, difference: Difference, ended: bool) -> None:
    print(f"\n{library.name} {library.version}, {way}")
    if not ended:
        print(f"  it was killed after {RUN_LIMIT_S} s")
    for reason, tests in difference.known.items():
        print(f"  known ({len(tests)}): {reason}")
    for test, why in difference.new.items():
        print(f"  NEW  {test}: {why}")
    for pattern in difference.gone:
        print(f"  passes now, or was not run: {pattern}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
