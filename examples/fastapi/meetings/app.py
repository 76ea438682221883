"""The routes."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from . import service
from .database import get_plain_session, get_session

app = FastAPI(title="Meetings")

InRequest = Annotated[AsyncSession, Depends(get_session)]
InThread = Annotated[Session, Depends(get_plain_session)]


class Request(BaseModel):
    who: str
    days: list[date]


class Booked(BaseModel):
    who: str
    day: date


@app.post("/rooms/{room}/bookings", status_code=201)
async def book(room: str, request: Request, session: InRequest) -> list[Booked]:
    try:
        booked = await service.book(session, room, request.who, request.days)
    except service.NoSuchRoom as error:
        raise HTTPException(404, f"no room {error}") from error
    except service.Taken as error:
        raise HTTPException(409, f"taken: {error}") from error
    return [Booked(who=booking.who, day=booking.day) for booking in booked]


@app.get("/rooms/{room}/bookings")
async def bookings(room: str, session: InRequest) -> list[Booked]:
    found = await service.bookings_of(session, room)
    return [Booked(who=booking.who, day=booking.day) for booking in found]


@app.get("/wishes")
def wishes(session: InThread) -> dict[str, int]:
    return service.wishes(session)


@app.delete("/wishes")
def forget_wishes(session: InThread) -> int:
    return service.forget_wishes(session)
