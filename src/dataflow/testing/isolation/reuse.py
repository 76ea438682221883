"""Whether a connection may serve another test."""

from __future__ import annotations

import asyncpg

from dataflow.testing.isolation.connection import TestConnection
from dataflow.testing.isolation.physical import SETTLE_S, PhysicalConnection
from dataflow.testing.isolation.statements import StatementLog

# What asyncpg raises on a connection that the server, or the network, has ended.
BROKEN = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server's last words came while nobody asked
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
# Like DISCARD ALL, but for the prepared statements: asyncpg keeps account of those.
_WASH = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "
    "SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)


async def answers(connection: TestConnection) -> bool:
    try:
        await connection.physical.execute("SELECT 1", timeout=SETTLE_S)
    except (*BROKEN, asyncpg.PostgresError, TimeoutError):
        return False
    return True


async def made_ready(physical: PhysicalConnection, log: StatementLog) -> bool:
    """Whether it can serve the next test; what is left of this one is undone."""
    if physical.is_in_transaction() or physical.cancelling:
        return False
    if log.outside and not await washed(physical):
        return False
    if log.schema_changed:
        await physical.reload_schema_state()  # cached plans may name tables that are gone
    return True


async def washed(physical: PhysicalConnection) -> bool:
    """Undo what statements outside of a test's transaction did to the session; False: it cannot be used again."""
    try:
        await physical.execute(_WASH, timeout=SETTLE_S)
    except (*BROKEN, asyncpg.PostgresError, TimeoutError):
        return False
    return True
