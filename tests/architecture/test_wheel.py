"""The distribution as users get it: built, installed without this checkout, and used."""

from __future__ import annotations

import sysconfig
import venv
import zipfile
from pathlib import Path

from tests.architecture.conftest import ROOT, outside, run

TEST = """
import pytest

@pytest.mark.asyncio
async def test_it(tdd_test_context):
    assert await tdd_test_context.connection.fetchval("SELECT 1") == 1

def test_from_where(tdd_runtime):
    import dataflow.testing
    print("\\nplace=" + dataflow.testing.__file__)
"""


def test_the_wheel_holds_the_package_its_entry_points_and_its_type_marker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
        text = archive.read(entry_points).decode()
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assert sources <= names
    assert "dataflow/testing/py.typed" in names
    assert {name for name in names if not name.startswith("dataflow/")} == {
        name for name in names if ".dist-info/" in name
    }
    assert "[pytest11]\ndataflow.testing.plugin = dataflow.testing.plugin" in text
    assert "[console_scripts]\ndataflow-tdd = dataflow.testing.cli:main" in text


def test_installed_it_runs_tests_on_the_embedded_server_and_its_command(wheel: Path, tmp_path: Path) -> None:
    """The other packages come from this environment; ours only from the wheel."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    ours = Path(sysconfig.get_path("purelib"))
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "others.pth").write_text(f"import sys; sys.path.append({str(ours)!r})\n")
    (tmp_path / "test_it.py").write_text(TEST)
    environment = outside()
    out = run(
        python,
        "-m",
        "pytest",
        "-s",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        tmp_path,
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        cwd=tmp_path,
        env=environment,
    )
    assert "2 passed" in out
    assert f"place={site}" in out
    assert "DataFlow TDD" in out
    status = run(python, "-m", "dataflow.testing.cli", "server", "status", cwd=tmp_path, env=environment)
    assert "PostgreSQL 18" in status
