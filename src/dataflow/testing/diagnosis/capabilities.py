"""What the server in use can do for the role that tests have. Choices are made from this, not from its name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from dataflow.testing.diagnosis.borrowing import server_of_tests
from dataflow.testing.diagnosis.model import Check, Diagnosis, Status, failure, info, ok
from dataflow.testing.diagnosis.setup import invalid_settings, read_settings
from dataflow.testing.errors import CannotCreateDatabase, SettingsError
from dataflow.testing.runtime import runtime

if TYPE_CHECKING:
    from dataflow.testing.dsn import Dsn

TITLE = "Server capabilities"
_FALLBACK_TIMEOUT_S = 10.0

_QUERY = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int, current_user::text,
       role.rolsuper, role.rolsuper OR role.rolcreatedb,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_walinspect'),
       current_setting('max_connections')::int
  FROM pg_roles AS role WHERE role.rolname = current_user
"""


@dataclass(frozen=True)
class Capabilities:
    """Facts about a server, as one role sees it.

    :param version_number: as PostgreSQL counts: 180006 is 18.6.
    :param create_database: the role may CREATE DATABASE. :param pg_walinspect: the extension is available.
    """

    version: str
    version_number: int
    role: str
    superuser: bool
    create_database: bool
    pg_walinspect: bool
    max_connections: int


@dataclass(frozen=True)
class ServerCapabilities(Diagnosis):
    """:param capabilities: None when the server could not be asked."""

    capabilities: Capabilities | None = None


async def check_server_capabilities() -> ServerCapabilities:
    """What the server that tests use, or would use, can do."""
    try:
        async with server_of_tests() as server:
            return describe_capabilities(await _ask(server.user_dsn), await _ask(server.admin_dsn))
    except SettingsError as error:
        return ServerCapabilities(TITLE, (invalid_settings(error),))
    except Exception as error:
        return ServerCapabilities(TITLE, (failure("capabilities", error),))


def describe_capabilities(found: Capabilities, admin: Capabilities) -> ServerCapabilities:
    """Whatever the server lacks is no failure: there is another way, which costs more. Pure.

    :param found: for the role that tests have. :param admin: for that which makes databases.
    """
    checks = (
        ok("PostgreSQL", found.version, **asdict(found)),
        _may("CREATE DATABASE", found.create_database, f"ALTER ROLE {_quoted(found.role)} CREATEDB;"),
        info("superuser", "yes" if found.superuser else f"no ({found.role} is an ordinary role)"),
        _walinspect(found),
        _databases(admin),
    )
    return ServerCapabilities(TITLE, checks, found)


def _may(name: str, allowed: bool, remedy: str) -> Check:
    if allowed:
        return ok(name, "allowed")
    return Check(
        name, Status.INFO, "not allowed, which rollback isolation does not need", f"to allow it: {remedy}"
    )


def _walinspect(found: Capabilities) -> Check:
    if found.pg_walinspect:
        return ok("pg_walinspect", "available")
    return Check(
        "pg_walinspect",
        Status.INFO,
        "not available, which rollback isolation does not need",
        "it comes with PostgreSQL 15 and later, on Debian in the package postgresql, elsewhere in "
        "postgresql-contrib; the embedded server has it",
    )


def _databases(admin: Capabilities) -> Check:
    """How tests that commit get their databases."""
    from dataflow.testing.lease.strategy import Facts, choose

    facts = Facts(admin.version_number, admin.role, admin.superuser, admin.create_database, admin.pg_walinspect)
    try:
        return info("tdd_database", f"databases are {choose(facts)}")
    except CannotCreateDatabase as error:
        return Check("tdd_database", Status.INFO, f"not possible: {error.what}", error.remedy)


async def _ask(dsn: Dsn) -> Capabilities:
    from dataflow.testing.isolation.connecting import connect

    read = read_settings(runtime())
    timeout_s = _FALLBACK_TIMEOUT_S if isinstance(read, SettingsError) else read.pool_timeout
    connection = await connect(dsn, timeout=timeout_s)
    try:
        row = await connection.fetchrow(_QUERY, timeout=timeout_s)
        return Capabilities(*tuple(row or ()))
    finally:
        await connection.close(timeout=timeout_s)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
