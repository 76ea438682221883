"""What is for sale, and for how much."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .database import Connection
from .errors import NotFound


@dataclass(frozen=True)
class Product:
    id: int
    sku: str
    name: str
    price_cents: int


async def add_product(
    connection: Connection,
    sku: str,
    name: str,
    price_cents: int,
    attributes: Mapping[str, Any] | None = None,
) -> int:
    product_id: int = await connection.fetchval(
        "INSERT INTO products (sku, name, price_cents, attributes) VALUES ($1, $2, $3, $4) RETURNING id",
        sku,
        name,
        price_cents,
        json.dumps(attributes or {}),
    )
    return product_id


async def product(connection: Connection, sku: str) -> Product:
    row = await connection.fetchrow("SELECT id, sku, name, price_cents FROM products WHERE sku = $1", sku)
    if row is None:
        raise NotFound(f"product {sku}")
    return Product(**row)


async def search(connection: Connection, **attributes: Any) -> list[Product]:
    """Products on sale that have all of these attributes; a list need only contain what is asked for."""
    rows = await connection.fetch(
        "SELECT id, sku, name, price_cents FROM products WHERE on_sale AND attributes @> $1 ORDER BY sku",
        json.dumps(attributes),
    )
    return [Product(**row) for row in rows]


async def change_price(connection: Connection, sku: str, price_cents: int) -> None:
    await _update(connection, sku, "price_cents = $2", price_cents)


async def withdraw(connection: Connection, sku: str) -> None:
    """Nobody can put it in a cart any more; orders that have it stay as they are."""
    await _update(connection, sku, "on_sale = $2", False)


async def _update(connection: Connection, sku: str, assignment: str, value: int | bool) -> None:
    if await connection.execute(f"UPDATE products SET {assignment} WHERE sku = $1", sku, value) == "UPDATE 0":
        raise NotFound(f"product {sku}")
