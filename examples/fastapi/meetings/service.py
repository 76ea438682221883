"""What the application does, and what of it is one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .models import Booking, Room, Wish


class NoSuchRoom(Exception):
    """There is no room of that name."""


class Taken(Exception):
    """Somebody has the room at one of the days."""


async def book(session: AsyncSession, room: str, who: str, days: Sequence[date]) -> list[Booking]:
    """Give a room to somebody at all of these days, or at none of them. That it was asked for is kept anyway.

    :raises NoSuchRoom: :raises Taken:
    """
    session.add(Wish(room=room, who=who, days=len(days)))
    await session.commit()
    found = await session.scalar(select(Room).where(Room.name == room))
    if found is None:
        raise NoSuchRoom(room)
    bookings = [Booking(room=found, day=day, who=who) for day in days]
    try:
        for booking in bookings:
            session.add(booking)
            await session.flush()
        await session.commit()
    except IntegrityError as error:
        await session.rollback()
        raise Taken(f"{room} at {booking.day}") from error
    return bookings


async def bookings_of(session: AsyncSession, room: str) -> Sequence[Booking]:
    of_room = select(Booking).join(Booking.room).where(Room.name == room).order_by(Booking.day)
    return (await session.scalars(of_room)).all()


def wishes(session: Session) -> dict[str, int]:
    """How often each room was asked for."""
    counted = select(Wish.room, func.count()).group_by(Wish.room).order_by(Wish.room)
    return {room: int(times) for room, times in session.execute(counted)}


def forget_wishes(session: Session) -> int:
    """Returns how many there were."""
    found = session.scalars(select(Wish)).all()
    for wish in found:
        session.delete(wish)
    session.commit()
    return len(found)
