"""Whether a connection may serve another test."""

from __future__ import annotations

import asyncpg

from dataflow.testing.isolation.connection import TestConnection
from dataflow.testing.isolation.physical import SETTLE_S, PhysicalConnection

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


async def washed(physical: PhysicalConnection) -> bool:
    """Undo what statements outside of a test's transaction did to the session; False: it cannot be used again."""
    try:
        await physical.execute(_WASH, timeout=SETTLE_S)
    except (*BROKEN, asyncpg.PostgresError, TimeoutError):
        return False
    return True
