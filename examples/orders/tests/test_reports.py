from __future__ import annotations

from datetime import UTC, date, datetime

from orders import reports
from orders.database import Connection
from orders.reports import Day, Seller

from .factories import a_paid_order, a_placed_order


async def sold_at(connection: Connection, moment: datetime, goods: dict[str, int]) -> None:
    order = await a_paid_order(connection, goods)
    await connection.execute("UPDATE orders SET placed_at = $2 WHERE id = $1", order.id, moment)


async def test_a_new_shop_has_no_best_seller(connection: Connection) -> None:
    assert await reports.best_sellers(connection) == []


async def test_best_sellers_count_pieces_of_all_orders(connection: Connection) -> None:
    await a_paid_order(connection, {"HOUSE": 2, "FILTERS": 3})
    await a_paid_order(connection, {"HOUSE": 2})
    assert await reports.best_sellers(connection) == [Seller(1, "HOUSE", 4), Seller(2, "FILTERS", 3)]


async def test_equal_sellers_share_a_rank(connection: Connection) -> None:
    await a_paid_order(connection, {"HOUSE": 2, "ETHIOPIA": 2, "FILTERS": 5, "DECAF": 1})
    assert await reports.best_sellers(connection, ranks=2) == [
        Seller(1, "FILTERS", 5),
        Seller(2, "ETHIOPIA", 2),
        Seller(2, "HOUSE", 2),
    ]


async def test_only_paid_orders_count(connection: Connection) -> None:
    await a_placed_order(connection, {"HOUSE": 9})
    await a_paid_order(connection, {"FILTERS": 1})
    assert await reports.best_sellers(connection) == [Seller(1, "FILTERS", 1)]


async def test_revenue_by_day_with_a_running_total(connection: Connection) -> None:
    await sold_at(connection, datetime(2020, 2, 28, 9, tzinfo=UTC), {"HOUSE": 1})
    await sold_at(connection, datetime(2020, 2, 28, 17, tzinfo=UTC), {"FILTERS": 2})
    await sold_at(connection, datetime(2020, 3, 1, 9, tzinfo=UTC), {"HOUSE": 2})
    assert await reports.daily_revenue(connection, date(2020, 2, 28), date(2020, 3, 1)) == [
        Day(date(2020, 2, 28), 1800, 1800),
        Day(date(2020, 2, 29), 0, 1800),
        Day(date(2020, 3, 1), 1800, 3600),
    ]


async def test_a_day_ends_at_midnight_utc(connection: Connection) -> None:
    await sold_at(connection, datetime(2020, 2, 28, 23, 59, tzinfo=UTC), {"HOUSE": 1})
    await sold_at(connection, datetime(2020, 2, 29, 0, 0, tzinfo=UTC), {"FILTERS": 1})
    assert await reports.daily_revenue(connection, date(2020, 2, 29), date(2020, 2, 29)) == [
        Day(date(2020, 2, 29), 450, 450)
    ]
