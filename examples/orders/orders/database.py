"""The schema, and transactions that are tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from .errors import Busy

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
Result = TypeVar("Result")

SCHEMA = Path(__file__).with_name("schema.sql")

# The server ended the transaction for the sake of another one: the same work may well succeed now.
TRANSIENT = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


async def create_schema(connection: Connection) -> None:
    await connection.execute(SCHEMA.read_text(encoding="utf-8"))


async def transact(
    connection: Connection,
    work: Callable[[], Awaitable[Result]],
    *,
    attempts: int = 3,
    pause_s: float = 0.01,
) -> Result:
    """Do the work in a transaction of its own, and again when it lost against another transaction.

    Raises Busy after `attempts` losses. Call it outside of transactions: an outer one would be lost as well.
    """
    for attempt in range(1, attempts + 1):
        try:
            async with connection.transaction():
                return await work()
        except TRANSIENT as error:
            if attempt == attempts:
                raise Busy(f"gave up after {attempts} attempts") from error
            await asyncio.sleep(pause_s * attempt)
    raise ValueError("attempts must be at least 1")
