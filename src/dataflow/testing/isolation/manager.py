"""`TDDDatabaseManager`: which server the tests use, and which test holds which connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING

import asyncpg

from dataflow.testing.dsn import Dsn
from dataflow.testing.events import Emit, SessionsNotKept, ignore
from dataflow.testing.isolation.beside import Beside
from dataflow.testing.isolation.chosen import ChooseServer, ChosenServer
from dataflow.testing.isolation.connecting import read_address
from dataflow.testing.isolation.connection import TestConnection
from dataflow.testing.isolation.context import TDDTestContext, named
from dataflow.testing.isolation.ending import Endings, Judge, Undoing
from dataflow.testing.isolation.loops import LoopPools, RoomTerms
from dataflow.testing.isolation.outcomes import not_begun
from dataflow.testing.isolation.parking import Parking
from dataflow.testing.isolation.physical import PhysicalConnection
from dataflow.testing.isolation.pool import ConnectionPool, close_quietly, terminate
from dataflow.testing.isolation.refusals import not_clean
from dataflow.testing.isolation.reuse import BROKEN, answers, made_ready
from dataflow.testing.isolation.rollback import TDDTransactionManager
from dataflow.testing.masking import mask

if TYPE_CHECKING:
    from dataflow.testing.isolation.server_protocol import Server
    from dataflow.testing.sandbox.recording import Recorder
    from dataflow.testing.settings import Settings

log = logging.getLogger("dataflow.testing")


class TDDDatabaseManager:
    """Gives each test a connection of its own, from a pool in the test's event loop.

    All waits are bounded by the settings `pool_timeout` and `timeout` (seconds).
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        choose_server: ChooseServer,
        transactions: TDDTransactionManager,
        *,
        judge: Judge,
        new_recorder: Callable[[], Recorder],
        emit: Emit = ignore,
        who: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._transactions = transactions
        self._emit = emit
        self._who = who
        self._new_recorder = new_recorder
        self._chosen = ChosenServer(settings, choose_server, emit)
        self._pools = LoopPools(self._make_pool)
        self._beside = Beside(settings, self._chosen, self._room, who)
        self._parking = Parking(lambda reason: emit(SessionsNotKept(reason)))
        undoing = Undoing(transactions, self._lost, self._give_back)
        self._endings = Endings(undoing, judge, lambda: settings().escapes == "error", emit, self._pollute)
        self._active: dict[TDDTestContext, tuple[TestConnection, ConnectionPool]] = {}
        self._connecting: dict[TDDTestContext, asyncio.Lock] = {}
        self._polluted: tuple[Dsn, str] | None = None  # an address, and what happened there

    @property
    def server(self) -> Server | None:
        """The server in use, or None before the first connection."""
        return self._chosen.current

    @property
    def connection_pool(self) -> ConnectionPool | None:
        """The pool of the running loop; outside of one, of the loop used last. None before the first use."""
        return self._pools.existing()

    @property
    def active_connections(self) -> Mapping[str, TestConnection]:
        """The open connections that tests hold now, by test id; a second one of the same id is ``id#2``."""
        held = ((context.test_id, connection) for context, (connection, _) in list(self._active.items()))
        return MappingProxyType(named((name, each) for name, each in held if not each.is_closed()))

    @property
    def rolls_back(self) -> bool:
        """A test that will be rolled back has begun."""
        return any(context.horizon is not None for context in self._active)

    @property
    def active_contexts(self) -> tuple[TDDTestContext, ...]:
        """Whoever holds a connection now, of the pool or beside it."""
        return (*self._active, *self._beside.holders)

    async def initialize(self, connection_string: str | None = None) -> None:
        """Choose the server and open the pool's first connection. Calling it again does no harm.

        Another URL than before takes the place of the server in use: all that is open there is closed.

        :param connection_string: URL of the test database, instead of what the settings say.
        :raises SettingsError: it is no such URL.
        :raises ServerError: no usable server; the message lists what was tried.
        """
        try:
            dsn = read_address(connection_string)
        finally:
            connection_string = None  # nobody shall see it in a traceback
        await self.ensure_server(dsn)
        await self._pools.of_running_loop().fill()

    async def ensure_server(self, dsn: Dsn | None = None) -> Server:
        """The server in use; the first call chooses it, also when many come at a time.

        :param dsn: the test database, instead of what the settings say.
        """
        if self.server is not None and not self._chosen.fits(dsn):
            await self.close()
        return await self._chosen.ensure(dsn)

    def server_without_loop(self) -> Server:
        """The same for code that runs in no event loop."""
        if self.server is not None:
            return self.server
        # A thread of its own: the current loop of the calling thread stays as it is.
        with ThreadPoolExecutor(max_workers=1) as executor:
            return executor.submit(asyncio.run, self.ensure_server()).result()

    async def get_test_connection(self, context: TDDTestContext) -> TestConnection:
        """A connection that belongs to `context` until `cleanup_test_connection`. No transaction is begun.

        :raises PoolExhausted: none became free in time; the message names the holders.
        :raises ServerError: the server cannot be used.
        """
        lock = self._connecting.setdefault(context, asyncio.Lock())
        try:
            async with lock:  # two tasks of one test get the same connection
                return await self._connection_of(context)
        finally:
            if not lock.locked():
                self._connecting.pop(context, None)

    async def _connection_of(self, context: TDDTestContext) -> TestConnection:
        if context in self._active:
            return context.connection
        await self.ensure_server()
        while True:
            connection, used_before = await self._checkout(context)
            if not used_before or await answers(connection):
                return connection
            connection.terminate()
            self._chosen.suspect = True
            await self._give_back(context)

    async def begin(self, context: TDDTestContext) -> TestConnection:
        """A connection for `context`, inside the transaction that isolates its test.

        :raises DatabaseNotClean: an earlier test may have left rows behind.
        """
        if self._chosen.current is None:
            await self.ensure_server()
        if self._polluted is not None and self._polluted[0] == self._dsn():
            raise not_clean(self._polluted[1])
        started = perf_counter()
        while True:
            connection, used_before = await self._checkout(context)
            try:
                await self._transactions.begin_test_transaction(connection, context)
            except BaseException as error:
                connection.forbid_reuse()
                await self._give_back(context)
                if isinstance(error, TimeoutError):
                    raise not_begun(context, self._settings().timeout) from error
                if used_before and isinstance(error, BROKEN):
                    log.debug("a pooled connection had ended: %s", mask(repr(error)))
                    self._chosen.suspect = True
                    continue  # the server had ended it between two tests: take another one
                raise
            context.setup_s = perf_counter() - started
            if log.isEnabledFor(logging.DEBUG):
                log.debug("begun: %s, in %.2f ms", mask(context.holder), context.setup_s * 1e3)
            return connection

    async def end(self, context: TDDTestContext) -> None:
        """Roll back the test's transaction and take its connection back.

        :raises TransactionEnded: the test left its transaction; the next tests may be refused.
        :raises CommitEscaped: something was committed in its database meanwhile, and that is an error.
        """
        beside = tuple(other.test_id for other in self._active if other is not context)
        await self._endings.end(context.connection, context, beside)

    async def cleanup_test_connection(self, context: TDDTestContext) -> None:
        """Take the connection of `context` back, rolling back what is open. Harmless when it has none."""
        if context in self._active and not context.ending:
            await self.end(context)

    async def cleanup_all_test_connections(self) -> None:
        """Take back the connections of all contexts."""
        for context in list(self._active):
            await self.cleanup_test_connection(context)

    async def open_connection(self, context: TDDTestContext) -> PhysicalConnection:
        """A plain connection beside the pool, in no transaction; close it with `close_connection`.

        :raises PoolExhausted: the process has as many connections beside the pool as the settings allow.
        """
        context.owner = context.owner or self._who()
        await self.ensure_server()
        return await self._beside.open(context)

    async def close_connection(self, physical: PhysicalConnection) -> None:
        """Close a connection of `open_connection`. Idempotent."""
        await self._beside.close(physical)

    async def asyncpg_pool(self) -> asyncpg.Pool:
        """A plain `asyncpg.Pool` on the test database, one per event loop and closed with it. It commits.

        Its connections are those that the settings allow beside the pool of the tests.
        """
        await self.ensure_server()
        return await self._beside.pool()

    def discard(self, context: TDDTestContext) -> None:
        """Take a connection away from whoever forgot to give it back: close it, without waiting."""
        if context in self._active:
            connection, pool = self._active.pop(context)
            self._transactions.forget(context)
            context.detach()
            physical, _ = connection.detach()
            terminate(physical)
            pool.release(physical, reusable=False)
        self._beside.discard(context)

    async def close(self) -> None:
        """Close everything: contexts become stale, connections are closed, the server is given back."""
        self._drop_all()
        await self._beside.close_all()
        await self._pools.close_own()
        self._parking.drop_all()
        self.release_server()

    def let_go_idle(self) -> None:
        """Close the connections that nobody holds, without waiting."""
        self._pools.drop_idle()
        self._parking.drop_all()

    def release_server(self) -> None:
        """Give the server back without an event loop; for the end of a process. Idempotent."""
        self._drop_all()
        self._beside.drop_all()
        self._pools.drop_all()
        self._parking.drop_all()
        self._chosen.release()

    def _dsn(self) -> Dsn:
        assert self._chosen.current is not None, "a server was chosen"
        return self._chosen.current.dsn

    def _make_pool(self) -> ConnectionPool:
        settings = self._settings()
        return ConnectionPool(
            self._connect,
            min_size=min(1, settings.pool_max_size - 1),
            max_size=settings.pool_max_size,
            timeout=settings.pool_timeout,
            keep=self._park,
        )

    async def _connect(self) -> PhysicalConnection:
        server = await self.ensure_server()
        self._pools.abandon_dead()
        if (connection := await self._parking.go_on(server.dsn, self._chosen.resume)) is not None:
            return connection
        async with self._room():
            return await self._chosen.connect()

    def _park(self, connection: PhysicalConnection) -> bool:
        server = self._chosen.current
        return server is not None and self._parking.keep(connection, server.dsn)

    def _room(self) -> AbstractAsyncContextManager[None]:
        settings = self._settings()
        return self._pools.room(
            RoomTerms(
                settings.max_connections,
                lambda: self._beside.open_size + self._parking.open_size,
                self._parking.drop_one,
                settings.pool_timeout,
                lambda: self.active_contexts,
            )
        )

    async def _checkout(self, context: TDDTestContext) -> tuple[TestConnection, bool]:
        pool = self._pools.of_running_loop()
        context.owner = context.owner or self._who()
        physical, used_before = await pool.acquire(context)
        used_before = used_before or physical.resumed
        connection = TestConnection(physical, context, self._settings().timeout)
        connection.opened = not used_before
        context.attach(connection, self._new_recorder())
        self._active[context] = connection, pool
        return connection, used_before

    async def _give_back(self, context: TDDTestContext) -> None:
        connection, pool = self._active.pop(context, (None, None))
        if connection is None or pool is None or not connection.attached:
            return  # everything was closed meanwhile
        context.detach()
        physical, reusable = connection.detach()
        try:
            reusable = reusable and await made_ready(physical, connection.log)
        except BaseException:
            reusable = False
            raise
        finally:
            if not pool.release(physical, reusable=reusable):
                await close_quietly(physical)

    def _pollute(self, problem: str) -> None:
        self._polluted = self._dsn(), problem

    def _lost(self, physical: PhysicalConnection) -> None:
        self._chosen.suspect = True
        terminate(physical)

    def _drop_all(self) -> None:
        for context in list(self._active):
            self._drop(context)

    def _drop(self, context: TDDTestContext) -> None:
        connection, _pool = self._active.pop(context)
        self._transactions.forget(context)
        context.detach()
        connection.detach()
