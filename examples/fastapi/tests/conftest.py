"""All that the tests need: for each kind of route one dependency, which is overridden by sessions of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from meetings.app import app
from meetings.database import get_plain_session, get_session

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker


@pytest.fixture(scope="session")
def tdd_session_options() -> dict[str, Any]:
    """As the application makes its sessions."""
    return {"expire_on_commit": False}


@pytest.fixture
async def client(tdd_async_sessionmaker: async_sessionmaker[AsyncSession]) -> AsyncIterator[httpx2.AsyncClient]:
    """Calls the application in the loop of the test. Each request has a session of its own, as in production;
    what they commit is rolled back after the test."""

    async def session_of_test() -> AsyncIterator[AsyncSession]:
        async with tdd_async_sessionmaker() as session:
            yield session

    app.dependency_overrides[get_session] = session_of_test
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        yield client
    del app.dependency_overrides[get_session]


@pytest.fixture
def plain_client(tdd_sessionmaker: sessionmaker[Session]) -> Iterator[TestClient]:
    """Calls the application from a plain test. The application is in another thread then, and in another loop, to
    which connections of asyncpg cannot go: it is for the routes that are plain functions."""

    def session_of_test() -> Iterator[Session]:
        with tdd_sessionmaker() as session:
            yield session

    app.dependency_overrides[get_plain_session] = session_of_test
    with TestClient(app) as client:
        yield client
    del app.dependency_overrides[get_plain_session]
