"""Who buys."""

from __future__ import annotations

import asyncpg

from .database import Connection
from .errors import EmailTaken


async def register(connection: Connection, email: str, name: str) -> int:
    """The new customer's id. Addresses that differ only in case are the same address."""
    try:
        async with connection.transaction():
            customer_id: int = await connection.fetchval(
                "INSERT INTO customers (email, name) VALUES ($1, $2) RETURNING id", email, name
            )
    except asyncpg.UniqueViolationError as error:
        raise EmailTaken(email) from error
    return customer_id


async def find(connection: Connection, email: str) -> int | None:
    customer_id: int | None = await connection.fetchval(
        "SELECT id FROM customers WHERE lower(email) = lower($1)", email
    )
    return customer_id
