"""All that a helper far away has to know of this machine and this run, to be pasted into an issue."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches

from dataflow.testing.diagnosis import installation
from dataflow.testing.diagnosis.apart import apart
from dataflow.testing.diagnosis.hiding import shown_variable
from dataflow.testing.diagnosis.installation import guarded
from dataflow.testing.diagnosis.model import Check, Detail, Diagnosis, Status, failure
from dataflow.testing.diagnosis.setup import TDDSetup, check_tdd_setup, read_settings
from dataflow.testing.errors import SettingsError
from dataflow.testing.options import OPTIONS
from dataflow.testing.runtime import runtime
from dataflow.testing.settings import CI_VARIABLES

TITLE = "Diagnostic information"
CONNECTIVITY_LIMIT_S = 60.0
_OURS = frozenset(option.environment for option in OPTIONS)
_PREFIX = "DATAFLOW_TDD_"
_OTHERS = frozenset({*CI_VARIABLES, "CONTAINER", "PYTEST_XDIST_WORKER", "XDG_CACHE_HOME"})
# What the driver reads when a URL does not say it. No prefix: PGP_PASSPHRASE is none of our business.
_DRIVERS = frozenset(
    [
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGPASSWORD",
        "PGDATABASE",
        "PGPASSFILE",
        "PGSERVICE",
        "PGOPTIONS",
        "PGSSLMODE",
        "PGSSLROOTCERT",
        "PGSSLCERT",
        "PGSSLKEY",
        "PGTARGETSESSIONATTRS",
        "PGKRBSRVNAME",
        "PGGSSLIB",
    ]
)
_KNOWN = _OURS | _OTHERS | _DRIVERS


def collect_diagnostic_info() -> Diagnosis:
    """Versions, settings, variables, servers, and whether the server answers; works in an event loop and outside.

    It may take as long as connecting does; no part of it stops the others.
    """
    return Diagnosis(TITLE, (*collect_installation().checks, *_setup(), guarded("connection", _connection)))


def collect_installation() -> Diagnosis:
    """The part of the diagnostic information that needs no server."""
    read = read_settings(runtime())
    checks = [
        guarded("Python", installation.python),
        guarded("platform", installation.machine),
        guarded("packages", installation.packages),
        guarded("environment", lambda: describe_variables(os.environ)),
        guarded("memory", installation.memory),
    ]
    if isinstance(read, SettingsError):
        checks += [installation.unread("embedded PostgreSQL"), installation.unread("embedded servers")]
    else:
        needed = read.database_url is None
        checks.append(guarded("embedded PostgreSQL", lambda: installation.binaries(read, needed=needed)))
        checks.append(guarded("embedded servers", lambda: installation.servers(read)))
    return Diagnosis("Installation", tuple(checks))


def describe_variables(environment: Mapping[str, str]) -> Check:
    """The environment variables that have a say in what we do; passwords are masked. Pure."""
    values: dict[str, Detail] = {
        name: shown_variable(name, value) for name, value in sorted(environment.items()) if name in _KNOWN
    }
    unknown = sorted(name for name in environment if name.startswith(_PREFIX) and name not in _OURS)
    found = f"{len(values)} set that matter here" if values else "no variable that matters here is set"
    if not unknown:
        return Check("environment", Status.INFO, found, details=values)
    return Check(
        "environment",
        Status.FAILED,
        f"{found}; not known: {', '.join(unknown)}",
        "; ".join(map(_correction, unknown)),
        details=values,
        cause="a typing error: what is not known has no effect",
    )


def _setup() -> tuple[Check, ...]:
    try:
        setup: TDDSetup = check_tdd_setup()
    except Exception as error:
        return (failure("mode", error),)
    return setup.checks


def _connection() -> Check:
    def ask() -> Check:
        import asyncio

        from dataflow.testing.diagnosis.connectivity import check_database_connectivity

        return asyncio.run(check_database_connectivity()).checks[0]

    return apart(ask, CONNECTIVITY_LIMIT_S)


def _correction(name: str) -> str:
    close = get_close_matches(name, sorted(_OURS), n=1)
    return f"{name}: " + (f"write {close[0]}" if close else "unset it")
