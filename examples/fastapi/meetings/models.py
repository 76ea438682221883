"""The tables."""

from __future__ import annotations

from datetime import date

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Room(Base):
    __tablename__ = "room"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    seats: Mapped[int]


class Booking(Base):
    """A room is given to one at a day."""

    __tablename__ = "booking"
    __table_args__ = (UniqueConstraint("room_id", "day"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    room_id: Mapped[int] = mapped_column(ForeignKey("room.id"))
    day: Mapped[date]
    who: Mapped[str]
    room: Mapped[Room] = relationship(lazy="joined")


class Wish(Base):
    """What somebody asked for, whether there was room or not."""

    __tablename__ = "wish"

    id: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[str]
    who: Mapped[str]
    days: Mapped[int]
