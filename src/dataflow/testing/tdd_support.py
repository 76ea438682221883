"""The public names, thin: each leads to the room that does the work.

Naming this module in ``pytest_plugins`` loads the pytest plugin too. Names that need the driver are looked up
when they are first used, so that importing this module costs nothing.

PYTEST_DONT_REWRITE: a conftest may import this module before it names it in ``pytest_plugins``.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from dataflow.testing.runtime import runtime

if TYPE_CHECKING:
    from dataflow.testing.diagnosis.address import verify_connection_string
    from dataflow.testing.diagnosis.capabilities import check_server_capabilities
    from dataflow.testing.diagnosis.connectivity import check_database_connectivity
    from dataflow.testing.diagnosis.environment import collect_diagnostic_info
    from dataflow.testing.diagnosis.infrastructure import check_tdd_infrastructure_status
    from dataflow.testing.diagnosis.pool import diagnose_connection_pool
    from dataflow.testing.diagnosis.recovery import recover_from_savepoint_error
    from dataflow.testing.diagnosis.setup import check_tdd_setup
    from dataflow.testing.diagnosis.transaction import diagnose_savepoint_issue, diagnose_transaction
    from dataflow.testing.isolation.context import (
        TDDTestContext,
        clear_test_context,
        get_test_context,
        set_test_context,
    )
    from dataflow.testing.isolation.manager import TDDDatabaseManager
    from dataflow.testing.isolation.rollback import TDDTransactionManager
    from dataflow.testing.lease.lease import DatabaseLease
    from dataflow.testing.recipes.performance import debug_performance
    from dataflow.testing.recipes.resources import TDDResourceManager
    from dataflow.testing.recipes.schema_templates import SchemaTemplates
    from dataflow.testing.template.alembic import AlembicMigrations
    from dataflow.testing.template.command import Command
    from dataflow.testing.template.files import SqlFiles
    from dataflow.testing.template.function import PythonFunction
    from dataflow.testing.template.steps import Steps

__all__ = [
    "AlembicMigrations",
    "Command",
    "DatabaseLease",
    "PythonFunction",
    "SchemaTemplates",
    "SqlFiles",
    "Steps",
    "TDDDatabaseManager",
    "TDDResourceManager",
    "TDDTestContext",
    "TDDTransactionManager",
    "check_database_connectivity",
    "check_server_capabilities",
    "check_tdd_infrastructure_status",
    "check_tdd_setup",
    "clear_test_context",
    "collect_diagnostic_info",
    "debug_performance",
    "diagnose_connection_pool",
    "diagnose_savepoint_issue",
    "diagnose_transaction",
    "get_database_manager",
    "get_test_context",
    "get_transaction_manager",
    "is_tdd_mode",
    "recover_from_savepoint_error",
    "set_test_context",
    "setup_tdd_infrastructure",
    "tdd_test_context",
    "teardown_tdd_infrastructure",
    "verify_connection_string",
]

# Loaded by pytest when it loads this module as a plugin; the entry point may have done it before.
pytest_plugins = ("dataflow.testing.plugin",)

_PLACES = {
    "check_database_connectivity": "diagnosis.connectivity",
    "check_server_capabilities": "diagnosis.capabilities",
    "check_tdd_infrastructure_status": "diagnosis.infrastructure",
    "check_tdd_setup": "diagnosis.setup",
    "collect_diagnostic_info": "diagnosis.environment",
    "diagnose_connection_pool": "diagnosis.pool",
    "diagnose_savepoint_issue": "diagnosis.transaction",
    "diagnose_transaction": "diagnosis.transaction",
    "recover_from_savepoint_error": "diagnosis.recovery",
    "verify_connection_string": "diagnosis.address",
    "TDDTestContext": "isolation.context",
    "clear_test_context": "isolation.context",
    "get_test_context": "isolation.context",
    "set_test_context": "isolation.context",
    "TDDDatabaseManager": "isolation.manager",
    "TDDTransactionManager": "isolation.rollback",
    "debug_performance": "recipes.performance",
    "TDDResourceManager": "recipes.resources",
    "SchemaTemplates": "recipes.schema_templates",
    "DatabaseLease": "lease.lease",
    "AlembicMigrations": "template.alembic",
    "Command": "template.command",
    "SqlFiles": "template.files",
    "PythonFunction": "template.function",
    "Steps": "template.steps",
}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"dataflow.testing.{place}"), name)
    globals()[name] = found
    return found


def is_tdd_mode() -> bool:
    """Whether TDD mode is on: set by DATAFLOW_TDD_MODE or tdd_mode, or turned on by the use of a TDD fixture.

    :raises SettingsError: it is set to a word that is neither yes nor no.
    """
    return runtime().is_tdd_mode()


def get_database_manager() -> TDDDatabaseManager:
    """The manager of this process's test connections. Nothing is opened yet."""
    return runtime().manager


def get_transaction_manager() -> TDDTransactionManager:
    """The manager of the transactions that isolate tests."""
    return runtime().transactions


async def setup_tdd_infrastructure() -> None:
    """Choose the server and open the first connection. Does nothing when TDD mode is set to false.

    :raises ServerError: no usable server; the message lists what was tried.
    """
    if runtime().is_tdd_mode_off():
        return
    runtime().use()
    await runtime().manager.initialize()


async def teardown_tdd_infrastructure() -> None:
    """Close all connections and give the server back. Idempotent; everything can be used again afterwards."""
    await runtime().close()


def tdd_test_context(
    test_id: str | None = None,
    isolation_level: str = "READ COMMITTED",
    timeout: float | None = None,
    **metadata: Any,
) -> AbstractAsyncContextManager[TDDTestContext]:
    """A test context by hand: ``async with tdd_test_context(test_id="x") as context:``.

    Its connection is inside a transaction that is rolled back at the end. The pytest fixture of the same name
    gives the same.

    :param isolation_level: in SQL's words, such as ``SERIALIZABLE``.
    :param timeout: seconds that one statement may take; None: as in the settings.
    :param metadata: put into the context's ``metadata``.
    :raises TDDModeDisabled: TDD mode is set to false.
    :raises ServerError: no usable server.
    :raises PoolExhausted: no connection became free in time.
    """
    return runtime().test_context(test_id, isolation_level, timeout, metadata)
