"""Fixtures for SQLAlchemy, and for SQLModel, whose sessions are another class. One fixture is one decision.

Those of asynchronous tests, which need a loop, are in `async_fixtures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from dataflow.testing.missing import importing
from dataflow.testing.plugin.telling import telling

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker

    from dataflow.testing.isolation.psycopg_tests import PsycopgContext
    from dataflow.testing.layers.sqlalchemy import Engines
    from dataflow.testing.runtime import Runtime


@pytest.fixture(scope="session")
def tdd_engine_options() -> dict[str, Any]:
    """What `tdd_engine` and `tdd_async_engine` give to `create_engine`; override it to say more."""
    return {}


@pytest.fixture(scope="session")
def tdd_session_options() -> dict[str, Any]:
    """What the makers of sessions get, such as ``expire_on_commit``; override it to say more."""
    return {}


@pytest.fixture(scope="session")
def tdd_session_class() -> type[Session]:
    """The class of sessions in plain tests; override it for SQLModel's."""
    with telling(), importing("sqlalchemy"):
        from sqlalchemy.orm import Session
    return Session


@pytest.fixture(scope="session")
def tdd_async_session_class() -> type[AsyncSession]:
    """The class of sessions in asynchronous tests; override it for SQLModel's."""
    with telling(), importing("sqlalchemy"):
        from sqlalchemy.ext.asyncio import AsyncSession
    return AsyncSession


@pytest.fixture(scope="session")
def _tdd_engines(tdd_runtime: Runtime) -> Engines:
    from dataflow.testing.layers.sqlalchemy import Engines

    return Engines(lambda: tdd_runtime.server().dsn)


@pytest.fixture
def tdd_engine(
    tdd_psycopg: PsycopgContext,
    tdd_engine_options: dict[str, Any],
    _tdd_engines: Engines,
) -> Iterator[Engine]:
    """An engine whose connections are in the transaction of the test; code under test may commit and roll back.

    Marked ``tdd(isolation="database")`` it is one to the database of the test, and commits.
    """
    from dataflow.testing.layers.sqlalchemy import retire

    engine = _tdd_engines.sync(tdd_psycopg.connect, tdd_psycopg.database, tdd_engine_options)
    yield engine
    engine.dispose()
    retire(engine)


@pytest.fixture
def tdd_sessionmaker(
    tdd_engine: Engine, tdd_session_class: type[Session], tdd_session_options: dict[str, Any]
) -> sessionmaker[Session]:
    """Makes sessions on `tdd_engine`, as the application's own `sessionmaker` does."""
    from sqlalchemy.orm import sessionmaker

    return sessionmaker(tdd_engine, class_=tdd_session_class, **tdd_session_options)


@pytest.fixture
def tdd_session(tdd_sessionmaker: sessionmaker[Session]) -> Iterator[Session]:
    """A session on `tdd_engine`, closed after the test."""
    with tdd_sessionmaker() as session:
        yield session


@pytest.fixture
def tdd_async_sessionmaker(
    tdd_async_engine: AsyncEngine,
    tdd_async_session_class: type[AsyncSession],
    tdd_session_options: dict[str, Any],
) -> async_sessionmaker[AsyncSession]:
    """Makes sessions on `tdd_async_engine`, as the application's own `async_sessionmaker` does."""
    from sqlalchemy.ext.asyncio import async_sessionmaker

    return async_sessionmaker(tdd_async_engine, class_=tdd_async_session_class, **tdd_session_options)
