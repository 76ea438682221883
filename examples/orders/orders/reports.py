"""Questions that the owner asks on Sunday evening. An order counts once it is paid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from .database import Connection


@dataclass(frozen=True)
class Seller:
    rank: int
    sku: str
    sold: int


@dataclass(frozen=True)
class Day:
    day: date
    cents: int
    total_cents: int


async def best_sellers(connection: Connection, *, ranks: int = 3) -> list[Seller]:
    """The products that sell best. Equal ones share a rank, so there may be more than `ranks` of them."""
    rows = await connection.fetch(
        """
        SELECT * FROM (
            SELECT rank() OVER (ORDER BY sum(quantity) DESC) AS rank, sku, sum(quantity) AS sold
            FROM orders JOIN order_lines ON order_id = orders.id JOIN products ON products.id = product_id
            WHERE status IN ('paid', 'collected')
            GROUP BY sku
        ) AS sellers WHERE rank <= $1 ORDER BY rank, sku
        """,
        ranks,
    )
    return [Seller(**row) for row in rows]


async def daily_revenue(connection: Connection, first: date, last: date) -> list[Day]:
    """Every day from first to last, days without an order too, with the running total. Days are in UTC."""
    rows = await connection.fetch(
        """
        WITH revenue AS (
            SELECT (placed_at AT TIME ZONE 'UTC')::date AS day, sum(quantity * unit_price_cents) AS cents
            FROM orders JOIN order_lines ON order_id = orders.id
            WHERE status IN ('paid', 'collected')
            GROUP BY 1
        )
        SELECT day::date, coalesce(cents, 0) AS cents,
               (sum(coalesce(cents, 0)) OVER (ORDER BY day))::bigint AS total_cents
        FROM generate_series($1::date, $2::date, interval '1 day') AS days (day)
             LEFT JOIN revenue USING (day)
        ORDER BY day
        """,
        first,
        last,
    )
    return [Day(**row) for row in rows]
