"""What all tests share: one private directory for everything a run makes, and a look at what it left behind.

The directory is the run's temporary directory and holds the cache of the embedded server. `run.sh` makes it
and names it in RUN_DIRECTORY; a bare `pytest` makes one here. xdist workers inherit that of their controller.

No test looks at the default address, where somebody's own server may answer: the whole run is told to use the
embedded one. `nobody_at_the_default_address` and `tests.networks` are for tests of just that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.ports import closed_port
from tests.processes import wait_gone
from tests.servers import BINARIES
from tests.waiting import reached

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import TDDError
from dataflow.testing.runtime import runtime
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database, running_servers, stop_server
from dataflow.testing.server.external import GUIDE_DSN
from dataflow.testing.server.protocol import User

pytest_plugins = ["pytester"]

RUN_DIRECTORY = "TDD_TESTS_DIRECTORY"
_FOREIGN = ("TEST_DATABASE_URL", "CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS", "CONTAINER")
_LIMIT_S = 10.0


def _use_directory_of_its_own() -> Path:
    """Point the environment of this process, and of all that it starts, to the run's directory."""
    for name in list(os.environ):
        if name in _FOREIGN or name.startswith("DATAFLOW_TDD_"):
            del os.environ[name]
    if RUN_DIRECTORY not in os.environ:
        os.environ[RUN_DIRECTORY] = tempfile.mkdtemp(prefix="dft-")
    directory = Path(os.environ[RUN_DIRECTORY])
    directory.chmod(0o755)  # as root, the server runs as another user, who must pass through
    os.environ["TMPDIR"] = str(directory)
    os.environ["DATAFLOW_TDD_CACHE_DIR"] = str(directory / "c")
    os.environ["DATAFLOW_TDD_SERVER"] = "embedded"
    if BINARIES is not None:
        os.environ["DATAFLOW_TDD_POSTGRES_BIN"] = str(BINARIES)
    tempfile.tempdir = None
    return directory


_directory = _use_directory_of_its_own()
_left_behind: list[str] = []


@pytest.fixture(scope="session")
def test_cache() -> Path:
    """The cache directory of the embedded server that tests share. Do not stop that server."""
    return _directory / "c"


@pytest.fixture(scope="session")
def admin_dsn(test_cache: Path) -> Iterator[Dsn]:
    """The shared server as its superuser, for looking at it from outside."""
    options = EmbeddedOptions(cache_dir=test_cache, binaries=BINARIES)
    lease = lease_database(options, what="the tests of dataflow-tdd")
    yield lease.admin_dsn
    lease.close()


@pytest.fixture
def make_cache_dir() -> Iterator[Callable[[], Path]]:
    """A cache of the test's own, for servers that it stops or kills; nothing of it may be left."""
    made: list[Path] = []

    def make() -> Path:
        path = Path(tempfile.mkdtemp(prefix="df-"))
        path.chmod(0o755)
        made.append(path)
        return path

    yield make
    for path in made:
        wait_gone(path)
        shutil.rmtree(path)


@pytest.fixture
def nobody_at_the_default_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dsn]:
    """The choice of a server as in a fresh environment, on a machine where nothing answers at the default
    address. That is another one here, because nobody knows what answers at the real one; it is returned."""
    with closed_port() as port:
        elsewhere = replace(GUIDE_DSN, port=port)
        monkeypatch.setattr("dataflow.testing.server.choice.GUIDE_DSN", elsewhere)
        monkeypatch.delenv("DATAFLOW_TDD_SERVER")
        yield elsewhere


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """After the workers have gone, and before the summary: clean up, and see what cleaned up after itself."""
    result = yield
    if not hasattr(session.config, "workerinput"):
        runtime().release()
        _left_behind.extend(_clean_up())
        if _left_behind:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was left behind counts as an error in the last line."""
    if _left_behind:
        text = "the tests left behind:\n" + "\n".join(f"- {thing}" for thing in _left_behind)
        report = pytest.CollectReport("what the tests left behind", "failed", text, [])
        terminalreporter.stats.setdefault("error", []).append(report)
        terminalreporter.section("LEFT BEHIND", red=True, bold=True)
        terminalreporter.write_line(text, red=True)


def _clean_up() -> list[str]:
    problems = [*_stop_shared_servers(), *_end_processes()]
    known = {"c", *(path.name for path in _directory.glob("pytest-of-*"))}
    problems += [f"{path}" for path in _directory.iterdir() if path.name not in known]
    shutil.rmtree(_directory, ignore_errors=True)
    if _directory.exists():
        problems.append(f"{_directory}, which cannot be removed")
    return problems


def _stop_shared_servers() -> Iterator[str]:
    options = EmbeddedOptions(cache_dir=_directory / "c", binaries=BINARIES)
    if not (_directory / "c").exists():
        return
    # The last processes may still be on their way out.
    if not reached(lambda: not _users(options), _LIMIT_S):
        for user in _users(options):
            yield f"a lease of {user.database} held by process {user.pid} ({user.what})"
    try:
        stop_server(options, force=True)
    except TDDError as error:
        yield str(error)


def _users(options: EmbeddedOptions) -> list[User]:
    return [user for server in running_servers(options) for user in server.users]


def _end_processes() -> Iterator[str]:
    """Processes of this run that outlived it; they are named, and ended by their ids."""
    if reached(lambda: not _processes(), _LIMIT_S):
        return
    for process in _processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            yield f"process {process.pid}: {' '.join(process.cmdline())[:200]}"
            process.kill()


def _processes() -> list[psutil.Process]:
    """All that know this run's directory, apart from this process and those that started it."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in own and _is_of_this_run(process)]


def _is_of_this_run(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return str(_directory) in " ".join(process.cmdline()) or (
            process.environ().get(RUN_DIRECTORY) == str(_directory)
        )
    except psutil.Error:
        return False
