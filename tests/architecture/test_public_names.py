"""The public names, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dataflow.testing import errors, tdd_support

GUIDE = {
    "TDDDatabaseManager",
    "TDDTestContext",
    "TDDTransactionManager",
    "clear_test_context",
    "get_database_manager",
    "get_test_context",
    "get_transaction_manager",
    "is_tdd_mode",
    "set_test_context",
    "setup_tdd_infrastructure",
    "tdd_test_context",
    "teardown_tdd_infrastructure",
}


def loaded_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split())


def test_all_is_what_is_importable() -> None:
    for name in tdd_support.__all__:
        assert getattr(tdd_support, name) is not None
    imported = subprocess.run(
        [sys.executable, "-c", "from dataflow.testing.tdd_support import *; print(*sorted(dir()))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.split()
    assert set(tdd_support.__all__) <= set(imported)


def test_each_lazy_name_is_public_and_declared_to_type_checkers() -> None:
    tree = ast.parse(Path(tdd_support.__file__).read_text())
    declared = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(tdd_support._PLACES) <= set(tdd_support.__all__) & declared
    assert list(tdd_support.__all__) == sorted(tdd_support.__all__)
    assert len(set(tdd_support.__all__)) == len(tdd_support.__all__)


def test_the_names_of_the_guide_are_there() -> None:
    assert set(tdd_support.__all__) >= GUIDE


def test_an_unknown_name_fails_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="tdd_support' has no attribute 'nothing'"):
        tdd_support.nothing  # noqa: B018


@pytest.mark.parametrize(
    "name",
    [
        "tdd_support",
        "cli",
        "runtime",
        "template.store",
        "template.files",
        "template.function",
        "template.command",
        "template.django",
    ],
)
def test_importing_costs_no_event_loop_no_driver_and_no_pytest(name: str) -> None:
    """Looked at in sys.modules, never in milliseconds."""
    drivers = {"asyncpg", "django", "psycopg"}
    heavy = drivers | {"asyncio", "psutil", "platformdirs", "pytest", "_pytest", "pytest_asyncio"}
    assert loaded_after(f"import dataflow.testing.{name}") & heavy == set()


def test_the_pytest_entry_imports_only_pytest_and_our_own_light_modules() -> None:
    ours = {name for name in loaded_after("import dataflow.testing.plugin") if name.startswith("dataflow")}
    assert ours == {
        "dataflow",
        "dataflow.testing",
        "dataflow.testing.errors",
        "dataflow.testing.options",
        "dataflow.testing.plugin",
        "dataflow.testing.runtime",
    }
    theirs = loaded_after("import dataflow.testing.plugin") - loaded_after("import pytest")
    foreign = {name.partition(".")[0] for name in theirs} - set(sys.stdlib_module_names)
    assert foreign == {"dataflow"}


def test_every_error_is_public_in_the_tree_and_has_a_message_of_its_own() -> None:
    values = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    classes = {name for name, value in values.items() if value.__module__ == errors.__name__}
    assert set(errors.__all__) == classes
    for name in classes:
        assert f" {name} " in (errors.__doc__ or "") or f"{name}\n" in (errors.__doc__ or "")
        error = getattr(errors, name)
        assert issubclass(error, errors.TDDError)
        if error not in (errors.SettingsError, errors.TDDError):
            assert str(error()) == error.__doc__.splitlines()[0]


def test_an_error_has_its_parts_in_order() -> None:
    error = errors.PoolExhausted("what", cause="why", remedy="do", option="--x")
    assert str(error) == "what\n  likely cause: why\n  way out: do\n  option: --x"
    assert str(errors.PoolExhausted("what", remedy="do")) == "what\n  way out: do"
    assert isinstance(error, TimeoutError)
    assert isinstance(errors.StatementTimeout("x"), TimeoutError)
