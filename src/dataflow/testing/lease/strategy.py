"""What the server allows, and so how databases are made ready for the next test. Deciding is pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.errors import CannotCreateDatabase
from dataflow.testing.reset.log import EXTENSION

if TYPE_CHECKING:
    import psycopg

_OLDEST_WITH_LOG = 160_000
_FACTS = """
SELECT current_setting('server_version_num')::int, current_user::text, role.rolsuper,
       role.rolsuper OR role.rolcreatedb,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = %s)
  FROM pg_roles AS role WHERE role.rolname = current_user
"""


class Facts(NamedTuple):
    """What a role may do on a server. :param version: as PostgreSQL counts: 180006 is 18.6."""

    version: int
    role: str
    superuser: bool
    create_database: bool
    walinspect: bool


class Method(enum.Enum):
    """How the next test gets a database like the template."""

    LOG = "put back from the write-ahead log"
    CLONE = "replaced by a fresh copy after each test"


class Strategy(NamedTuple):
    """:param reason: why it is not the fastest one, and what would enable that; None when it is."""

    method: Method
    reason: str | None = None

    def __str__(self) -> str:
        return self.method.value if self.reason is None else f"{self.method.value} ({self.reason})"


def facts(connection: psycopg.Connection) -> Facts:
    row = connection.execute(_FACTS, (EXTENSION,)).fetchone()
    assert row is not None
    return Facts(*row)


def choose(found: Facts) -> Strategy:
    """The best that is allowed.

    :raises CannotCreateDatabase: not even clones are.
    """
    if not found.create_database:
        raise CannotCreateDatabase(
            f"role {found.role} may not create databases, and so tests cannot have databases of their own",
            cause="the role of TEST_DATABASE_URL is without CREATEDB",
            remedy=f'ALTER ROLE "{found.role}" CREATEDB; or isolate by rollback (tdd_test_context), '
            "which needs no such right; or unset TEST_DATABASE_URL for the embedded server",
            option="TEST_DATABASE_URL",
        )
    reason = why_not_by_log(found)
    return Strategy(Method.LOG) if reason is None else Strategy(Method.CLONE, reason)


def why_not_by_log(found: Facts) -> str | None:
    """Why the log cannot be read and used there, and what would help; None when it can."""
    if found.version < _OLDEST_WITH_LOG:
        return f"the log can be read from PostgreSQL 16 on, this is {found.version // 10_000}"
    reasons = []
    if not found.walinspect:
        reasons.append(
            f"the server has no extension {EXTENSION}, which Debian has in the package postgresql, "
            "others in postgresql-contrib"
        )
    if not found.superuser:
        reasons.append(f"reading the log and leaving triggers out take a superuser, {found.role} is none")
    return "; ".join(reasons) or None
