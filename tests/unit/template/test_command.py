"""A command: what it is told, what of it is shown, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed
from dataflow.testing.template.command import Command

LIMIT_S = 20.0
DSN = Dsn("db.example", 6543, "u", "s3cret/x", "d_test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "1.py").write_text("one")
    return tmp_path


def command(folder: Path, program: str, variable: str = "DATABASE_URL") -> Command:
    (folder / "program.py").write_text(program)
    return Command("python program.py", ["migrations"], variable, folder)


def failure(tested: Command, limit_s: float = LIMIT_S) -> SchemaFailed:
    with pytest.raises(SchemaFailed) as raised:
        tested.apply(DSN, limit_s)
    return raised.value


def test_it_gets_the_address_as_url_and_as_the_variables_of_libpq(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICE", "production")
    monkeypatch.setenv("PGHOSTADDR", "10.0.0.1")
    monkeypatch.setenv("PGHOST", "production")
    monkeypatch.setenv("OTHER", "kept")
    program = "import json, os, pathlib; pathlib.Path('told').write_text(json.dumps(dict(os.environ)))"
    command(folder, program, "DATABASE_URL, SECOND_URL").apply(DSN, LIMIT_S)
    told = json.loads((folder / "told").read_text())
    assert told["DATABASE_URL"] == told["SECOND_URL"] == DSN.url()
    assert [told[f"PG{name}"] for name in ("HOST", "PORT", "USER", "PASSWORD", "DATABASE")] == [
        "db.example",
        "6543",
        "u",
        "s3cret/x",
        "d_test",
    ]
    assert told["OTHER"] == "kept"
    assert not {"PGSERVICE", "PGHOSTADDR"} & set(told)


def test_the_python_of_the_tests_is_found_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    command(folder, f"import sys; sys.exit(sys.prefix != {sys.prefix!r})").apply(DSN, LIMIT_S)


def test_no_shell_reads_the_command(folder: Path) -> None:
    program = "import sys; sys.exit(sys.argv[1:] != ['$HOME', 'a b', '*', '&&', 'false'])"
    (folder / "program.py").write_text(program)
    Command("python program.py $HOME 'a b' * && false", ["migrations"], directory=folder).apply(DSN, LIMIT_S)


def test_a_failure_shows_status_and_the_last_lines_without_passwords(folder: Path) -> None:
    program = (
        "import sys\n"
        "for n in range(40): print('line', n, flush=True)\n"
        "print('at postgresql://u:s3cret%2Fx@h/d, or s3cret/x', file=sys.stderr)\n"
        "sys.exit(3)"
    )
    error = failure(command(folder, program))
    assert "'python program.py' ended with status 3" in error.what
    assert "line 39" in error.what
    assert "line 10\n" not in error.what
    assert len(error.what.splitlines()) == 31
    assert "s3cret" not in str(error)
    assert "postgresql://u:***@h/d, or ***" in error.what


def test_a_missing_extension_in_the_output_is_explained(folder: Path) -> None:
    error = failure(command(folder, """import sys; sys.exit('extension "postgis" is not available')"""))
    assert error.cause == "the PostgreSQL in use does not have the extension postgis"


def test_a_signal_is_named(folder: Path) -> None:
    assert "was ended by SIGKILL" in failure(command(folder, "import os; os.kill(os.getpid(), 9)")).what


def test_one_that_hangs_is_ended_with_all_that_it_started(folder: Path) -> None:
    """Also what does not listen to SIGTERM."""
    program = (
        "import os, pathlib, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('begun', flush=True)\n"
        "pathlib.Path('new').write_text(f'{os.getpid()} {child.pid}'); os.rename('new', 'pids')\n"
        "time.sleep(600)"
    )
    for limit_s in (1.0, 5.0, LIMIT_S):  # on a busy machine it takes long to begin
        error = failure(command(folder, program), limit_s)
        if (folder / "pids").exists():
            break
    assert error.what == (
        f"the schema was not built within {limit_s:g} s: 'python program.py' was ended then\n    | begun"
    )
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    deadline = time.monotonic() + LIMIT_S
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process of the command outlived it"
        time.sleep(0.01)


def test_a_background_process_that_keeps_the_output_open_does_not_hold_us_up(folder: Path) -> None:
    program = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('pid').write_text(str(child.pid))"
    )
    command(folder, program).apply(DSN, LIMIT_S)
    psutil.Process(int((folder / "pid").read_text())).kill()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("no-such-program-here upgrade", "'no-such-program-here' cannot be run: No such file or directory"),
        ("./migrations/1.py", "'./migrations/1.py' cannot be run: Permission denied"),
    ],
)
def test_a_program_that_cannot_be_run_is_named(folder: Path, words: str, said: str) -> None:
    if os.access(folder / "migrations" / "1.py", os.X_OK):
        pytest.skip("every file is executable here")
    error = failure(Command(words, ["migrations"], directory=folder))
    assert error.what == said
    assert sys.executable in (error.remedy or "")


def test_a_directory_that_is_not_there_is_not_taken_for_a_missing_program(folder: Path) -> None:
    error = failure(Command("python x.py", [folder / "migrations"], directory=folder / "gone"))
    assert "there is no such directory" in error.what


def test_without_files_nothing_would_tell_when_it_is_stale() -> None:
    with pytest.raises(SchemaFailed, match="comes without files") as raised:
        Command("alembic upgrade head", [])
    assert "migrations/" in (raised.value.remedy or "")
    assert "tdd_schema_files" in (raised.value.option or "")


@pytest.mark.parametrize(("words", "said"), [("  ", "is empty"), ("x 'y", "No closing quotation")])
def test_a_command_that_is_none(words: str, said: str) -> None:
    with pytest.raises(SchemaFailed, match=said):
        Command(words, ["x"])


def test_the_fingerprint_follows_command_variables_names_and_contents(folder: Path) -> None:
    def printed(words: str = "x", variable: str = "V") -> str:
        return Command(words, ["migrations", "*.ini"], variable, folder).fingerprint()

    (folder / "alembic.ini").write_text("")
    prints = [printed(), printed("y"), printed(variable="W")]
    (folder / "migrations" / "1.py").write_text("changed")
    prints.append(printed())
    (folder / "migrations" / "1.py").rename(folder / "migrations" / "2.py")
    prints.append(printed())
    (folder / "alembic.ini").write_text("changed")
    prints.append(printed())
    assert len(set(prints)) == len(prints)
    (folder / "migrations" / "__pycache__").mkdir()
    (folder / "migrations" / "__pycache__" / "2.pyc").write_text("x")
    assert printed() == prints[-1]


def test_files_that_are_not_there_are_listed(folder: Path) -> None:
    with pytest.raises(SchemaFailed, match=r"gone does not exist\n.*\*\.ini fits no file"):
        Command("x", ["gone", "*.ini"], directory=folder).fingerprint()


def test_a_password_in_the_command_is_not_shown() -> None:
    assert Command("migrate --password=hunter2", ["x"]).describe() == "migrate --password=***"


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
