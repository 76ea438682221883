"""The pytest plugin: options, and the hooks that connect a run with the runtime.

This module is loaded in every pytest run, so it imports pytest, the standard library and the table of options.
Fixtures come in with `pytest_configure`; event loop and driver only when a test asks for one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import pytest

from dataflow.testing.options import OPTIONS
from dataflow.testing.runtime import Runtime, install

if TYPE_CHECKING:
    from dataflow.testing.plugin.run import Run

RUN: pytest.StashKey[Run] = pytest.StashKey()
PYTEST_ASYNCIO: pytest.StashKey[bool] = pytest.StashKey()  # whether it is active
_BEFORE: pytest.StashKey[Runtime | None] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dataflow-tdd", "DataFlow TDD: tests against a real PostgreSQL")
    for option in OPTIONS:
        group.addoption(option.flag, dest=option.ini, default=None, metavar="VALUE", help=_escaped(option.help))
        # Of options with several values, a list in pyproject.toml or lines of an ini file are understood, too.
        kind: Literal["linelist", "string"] = "linelist" if option.several else "string"
        parser.addini(option.ini, f"{option.help} (also {option.environment})", type=kind, default=None)


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    from dataflow.testing.plugin.isolation import HELP
    from dataflow.testing.plugin.run import Run

    config.addinivalue_line("markers", HELP)
    runtime = Runtime(
        command_line=_given((config.getoption(option.ini) for option in OPTIONS), not_given=(None,)),
        ini=_given((_text(config.getini(option.ini)) for option in OPTIONS), not_given=(None, "")),
    )
    config.stash[_BEFORE] = install(runtime)
    config.stash[RUN] = run = Run(config, runtime)
    config.pluginmanager.register(run, "dataflow-tdd-run")
    _register_fixtures(config)
    if config.pluginmanager.hasplugin("xdist"):
        from dataflow.testing.plugin.xdist import Merging

        config.pluginmanager.register(Merging(run), "dataflow-tdd-xdist")


def _text(value: Any) -> Any:
    return ",".join(value) if isinstance(value, list) else value


def _given(values: Iterable[Any], not_given: tuple[str | None, ...]) -> dict[str, str]:
    """What was given, by the name of the setting."""
    pairs = zip((option.name for option in OPTIONS), values, strict=True)
    return {name: str(value) for name, value in pairs if value not in not_given}


def _register_fixtures(config: pytest.Config) -> None:
    from dataflow.testing.plugin import database_fixtures, fixtures, sqlalchemy_fixtures

    config.pluginmanager.register(fixtures, "dataflow-tdd-fixtures")
    config.pluginmanager.register(database_fixtures, "dataflow-tdd-database-fixtures")
    config.pluginmanager.register(sqlalchemy_fixtures, "dataflow-tdd-sqlalchemy-fixtures")
    config.stash[PYTEST_ASYNCIO] = _is_active(config, "pytest_asyncio.plugin")
    if config.stash[PYTEST_ASYNCIO] or _is_active(config, "anyio.pytest_plugin"):
        from dataflow.testing.plugin import async_fixtures as module
    else:
        from dataflow.testing.plugin import no_async_fixtures as module  # type: ignore[no-redef]
    config.pluginmanager.register(module, "dataflow-tdd-async-fixtures")


def _is_active(config: pytest.Config, name: str) -> bool:
    """Whether a module is a plug-in of this run. By its name as one nothing could be told: that depends on how it
    was loaded."""
    module = sys.modules.get(name)
    return module is not None and config.pluginmanager.is_registered(module)


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is not None:
        run.runtime.release()
        install(config.stash[_BEFORE])
