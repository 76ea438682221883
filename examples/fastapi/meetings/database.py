"""How the application gets at its database: by the address in DATABASE_URL, which is read when first needed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from functools import cache

from sqlalchemy import create_engine, insert, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from .models import Base, Room


@cache
def _sessions() -> async_sessionmaker[AsyncSession]:
    url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+asyncpg")
    return async_sessionmaker(create_async_engine(url), expire_on_commit=False)


@cache
def _plain_sessions() -> sessionmaker[Session]:
    url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
    return sessionmaker(create_engine(url))


async def get_session() -> AsyncIterator[AsyncSession]:
    """A dependency of routes: a session for one request."""
    async with _sessions()() as session:
        yield session


def get_plain_session() -> Iterator[Session]:
    """The same for routes that are plain functions, which FastAPI runs in threads."""
    with _plain_sessions()() as session:
        yield session


def create_tables(url: str) -> None:
    """All tables, and the rooms that there are."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Room), [{"name": "Attic", "seats": 4}, {"name": "Hall", "seats": 40}])
    engine.dispose()
