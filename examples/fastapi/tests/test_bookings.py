"""Rooms are booked: by asynchronous routes, in the loop of the test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from meetings.models import Booking, Room, Wish

if TYPE_CHECKING:
    import httpx2
    from sqlalchemy.ext.asyncio import AsyncSession

HALL = "/rooms/Hall/bookings"
MONDAY, TUESDAY, WEDNESDAY = "2030-01-07", "2030-01-08", "2030-01-09"


async def test_a_room_is_booked(client: httpx2.AsyncClient) -> None:
    answer = await client.post(HALL, json={"who": "Ann", "days": [MONDAY, TUESDAY]})
    assert answer.status_code == 201
    assert (await client.get(HALL)).json() == [
        {"who": "Ann", "day": MONDAY},
        {"who": "Ann", "day": TUESDAY},
    ]


async def test_the_next_test_finds_it_free(client: httpx2.AsyncClient) -> None:
    """The requests of the one before committed, and were rolled back with it all the same."""
    assert (await client.get(HALL)).json() == []


async def test_all_days_or_none(client: httpx2.AsyncClient, tdd_async_session: AsyncSession) -> None:
    """The second request fails halfway: its first day is undone, what it had committed before is not."""
    await client.post(HALL, json={"who": "Ann", "days": [TUESDAY]})
    answer = await client.post(HALL, json={"who": "Bob", "days": [MONDAY, TUESDAY, WEDNESDAY]})
    assert answer.status_code == 409
    assert answer.json() == {"detail": f"taken: Hall at {TUESDAY}"}
    assert (await client.get(HALL)).json() == [{"who": "Ann", "day": TUESDAY}]
    wishes = await tdd_async_session.execute(select(Wish.who, Wish.days).order_by(Wish.id))
    assert list(wishes) == [("Ann", 1), ("Bob", 3)]


async def test_a_room_that_does_not_exist(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/rooms/Cellar/bookings", json={"who": "Ann", "days": [MONDAY]})
    assert (answer.status_code, answer.json()) == (404, {"detail": "no room Cellar"})


async def test_rows_of_the_test_itself(client: httpx2.AsyncClient, tdd_async_session: AsyncSession) -> None:
    """The application sees them once they are committed, as in production."""
    tdd_async_session.add(Room(name="Cellar", seats=12))
    await tdd_async_session.commit()
    answer = await client.post("/rooms/Cellar/bookings", json={"who": "Ann", "days": [MONDAY]})
    assert answer.status_code == 201


@pytest.mark.tdd(isolation="database")
async def test_two_want_the_same_day_at_a_time(
    client: httpx2.AsyncClient, tdd_async_session: AsyncSession
) -> None:
    """In a database of its own, in which requests really commit, each over a connection of its own."""
    wanted = [{"who": who, "days": [MONDAY]} for who in ("Ann", "Bob", "Cid")]
    answers = await asyncio.gather(*(client.post(HALL, json=each) for each in wanted))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert await tdd_async_session.scalar(select(func.count()).select_from(Booking)) == 1
