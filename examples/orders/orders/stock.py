"""Goods in lots: received by delivery, reserved for an order, and then handed over or released."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .database import Connection
from .errors import AlreadyReceived, NotFound, OutOfStock

FREE_LOTS = """
    SELECT id, on_hand - reserved AS quantity FROM lots
    WHERE product_id = $1 AND on_hand > reserved
    ORDER BY id FOR UPDATE
"""


class Lot(NamedTuple):
    id: int
    quantity: int


async def receive(connection: Connection, supplier: str, note: str, goods: Mapping[str, int]) -> int:
    """Book a delivery, all of it or nothing; `goods` maps sku to quantity. Returns its id."""
    async with connection.transaction():
        delivery_id: int | None = await connection.fetchval(
            "INSERT INTO deliveries (supplier, note) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id",
            supplier,
            note,
        )
        if delivery_id is None:
            raise AlreadyReceived(f"{supplier}, note {note}")
        for sku, quantity in goods.items():
            booked = await connection.execute(
                """
                INSERT INTO lots (delivery_id, product_id, on_hand)
                SELECT $1, id, $3 FROM products WHERE sku = $2
                """,
                delivery_id,
                sku,
                quantity,
            )
            if booked == "INSERT 0 0":
                raise NotFound(f"product {sku}")
    return delivery_id


async def available(connection: Connection, sku: str) -> int:
    total: int = await connection.fetchval(
        """
        SELECT coalesce(sum(on_hand - reserved), 0)
        FROM lots JOIN products ON products.id = product_id WHERE sku = $1
        """,
        sku,
    )
    return total


def pick(lots: Iterable[Lot], quantity: int) -> list[Lot]:
    """How much to take from which lot, the first ones first. There must be enough in all."""
    picked = []
    for lot in lots:
        taken = min(lot.quantity, quantity)
        if taken:
            picked.append(Lot(lot.id, taken))
        quantity -= taken
    return picked


async def reserve(connection: Connection, order_id: int, product_id: int, quantity: int) -> None:
    async with connection.transaction():
        # Lots that another checkout is taking from are passed over; there are mostly enough others.
        free = await _lock_free_lots(connection, product_id, "SKIP LOCKED")
        if _total(free) < quantity:
            # Now wait for those. Should two checkouts wait for each other, `transact` tries the loser again.
            free = await _lock_free_lots(connection, product_id)
        if _total(free) < quantity:
            raise OutOfStock(product_id, quantity - _total(free))
        picked = pick(free, quantity)
        await connection.executemany("UPDATE lots SET reserved = reserved + $2 WHERE id = $1", picked)
        await connection.executemany(
            "INSERT INTO reservations (order_id, lot_id, quantity) VALUES ($1, $2, $3)",
            [(order_id, *lot) for lot in picked],
        )


async def _lock_free_lots(connection: Connection, product_id: int, policy: str = "") -> list[Lot]:
    return [Lot(*row) for row in await connection.fetch(FREE_LOTS + policy, product_id)]


def _total(lots: Iterable[Lot]) -> int:
    return sum(lot.quantity for lot in lots)


async def release(connection: Connection, order_id: int) -> None:
    """What was reserved for the order is for sale again."""
    await connection.execute(
        """
        WITH ended AS (DELETE FROM reservations WHERE order_id = $1 RETURNING lot_id, quantity)
        UPDATE lots SET reserved = reserved - quantity FROM ended WHERE lots.id = lot_id
        """,
        order_id,
    )


async def hand_over(connection: Connection, order_id: int) -> None:
    """What was reserved for the order leaves the shop."""
    await connection.execute(
        """
        WITH ended AS (DELETE FROM reservations WHERE order_id = $1 RETURNING lot_id, quantity)
        UPDATE lots SET reserved = reserved - quantity, on_hand = on_hand - quantity
        FROM ended WHERE lots.id = lot_id
        """,
        order_id,
    )
