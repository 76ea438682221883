"""Engines of SQLAlchemy whose connections are those of a test.

What a new engine costs is its first connection, over which the dialect asks the server some questions. It is
kept from one rollback test to the next, since all of them are in one database; each has a pool of its own, and
listeners.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import StaleContext, WrongEventLoop
from dataflow.testing.missing import importing

if TYPE_CHECKING:
    import asyncpg
    import psycopg
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from dataflow.testing.lease.lease import DatabaseLease

# The test's connection knows where it leads to.
_ADDRESS = ("host", "port", "user", "password", "dbname", "database")

_Create = Callable[[Dsn, dict[str, Any]], "Engine"]


class _Kept(NamedTuple):
    """An engine that no test has in its hands, its pool, which stays unused, and what they were made from."""

    dsn: Dsn
    options: dict[str, Any]
    engine: Engine
    pool: Any


class Engines:
    """Makes the engines of tests, and keeps what can be kept between them.

    Each is as `create_engine` and `create_async_engine` make it, with the pool that they choose.

    :param rollback: where tests are that are rolled back.
    """

    def __init__(self, rollback: Callable[[], Dsn]) -> None:
        self._rollback = rollback
        self._kept: dict[_Create, _Kept] = {}

    def sync(
        self,
        connect: Callable[..., psycopg.Connection],
        database: DatabaseLease | None,
        options: Mapping[str, Any],
    ) -> Engine:
        """For code without an event loop, with psycopg; whoever gets it disposes of it, and lets it `retire`.

        :param connect: opens a connection of the test; gets the arguments that the dialect adds to an address.
        :param database: the test's own, if it commits. The engine's `url` says where that is, or where rollback
            tests are; nothing is opened by it.
        :param options: for `create_engine`.
        :raises MissingLibrary: SQLAlchemy is not installed.
        """

        def open_one(_dialect: Any, _record: Any, _positional: Any, named: dict[str, Any]) -> psycopg.Connection:
            return connect(**_without_address(named))

        return _for_test(self._found(database, options, _create), open_one)

    def asynchronous(
        self,
        connect: Callable[..., Awaitable[asyncpg.Connection]],
        database: DatabaseLease | None,
        options: Mapping[str, Any],
    ) -> AsyncEngine:
        """For code in the running event loop, with asyncpg; whoever gets it disposes of it. As `sync`."""
        loop = asyncio.get_running_loop()

        def check(*_given: Any) -> None:
            if asyncio.get_running_loop() is not loop:
                raise _other_loop()

        async def open_one(**named: Any) -> asyncpg.Connection:
            return await connect(**_without_address(named))

        def tell_how(_dialect: Any, _record: Any, _positional: Any, named: dict[str, Any]) -> None:
            check()
            named["async_creator_fn"] = open_one

        engine = _for_test(self._found(database, options, _create_async), tell_how)
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import AsyncEngine

        event.listen(engine, "checkout", check)
        return AsyncEngine(engine)

    def _found(self, database: DatabaseLease | None, options: Mapping[str, Any], create: _Create) -> _Kept:
        keep = database is None  # rollback tests that come later are in the same one
        dsn = self._rollback() if database is None else database.dsn
        found = self._kept.get(create)
        if keep and found is not None and (found.dsn, found.options) == (dsn, options):
            return found
        engine = create(replace(dsn, parameters=()), dict(options))
        made = _Kept(dsn, dict(options), engine, engine.pool)
        if keep:
            self._kept[create] = made
        return made


def _create(dsn: Dsn, options: dict[str, Any]) -> Engine:
    with importing("sqlalchemy"):
        from sqlalchemy import create_engine
    return create_engine(dsn.url(scheme="postgresql+psycopg"), **options)


def _create_async(dsn: Dsn, options: dict[str, Any]) -> Engine:
    with importing("sqlalchemy"):
        from sqlalchemy.ext.asyncio import create_async_engine
    return create_async_engine(dsn.url(scheme="postgresql+asyncpg"), **options).sync_engine


def _for_test(kept: _Kept, open_one: Callable[..., Any]) -> Engine:
    """An engine that shares what `kept` has learnt, and neither connections nor listeners."""
    from sqlalchemy import event

    engine = copy(kept.engine)
    engine.pool = kept.pool.recreate()
    for listened in (engine, engine.dialect):
        vars(listened).pop("dispatch", None)
    event.listen(engine, "do_connect", open_one)
    return engine


def retire(engine: Engine) -> None:
    """From now on it refuses. It shares a dialect with that of the next test, and so would connect there."""
    from sqlalchemy.pool import NullPool

    def refuse() -> NoReturn:
        raise StaleContext(
            "an engine was used whose test is over",
            cause="it was kept in a global or a wider fixture, or by a thread or task that outlived the test",
            remedy="take tdd_engine or tdd_async_engine in the test or fixture that needs it; wait for its tasks",
        )

    engine.pool = NullPool(refuse)


def _without_address(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name not in _ADDRESS}


def _other_loop() -> WrongEventLoop:
    return WrongEventLoop(
        "tdd_async_engine was used in another event loop than that of its test",
        cause="a client such as TestClient runs the application in a loop and a thread of its own",
        remedy="call the application in the loop of the test, by AsyncClient with an ASGITransport; "
        "or let it take sessions of tdd_engine, which needs no loop",
    )
