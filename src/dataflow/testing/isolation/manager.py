"""`TDDDatabaseManager`: which server the tests use, and which test holds which connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import asyncpg

from dataflow.testing.errors import DatabaseNotClean, ServerUnreachable, TransactionEnded
from dataflow.testing.events import ContextReleased, Emit, ServerChosen, ignore
from dataflow.testing.isolation.connecting import connect
from dataflow.testing.isolation.connection import PhysicalConnection, TestConnection
from dataflow.testing.isolation.context import ContextState, TDDTestContext
from dataflow.testing.isolation.loops import LoopBound, LoopPools
from dataflow.testing.isolation.pool import ConnectionPool, close_quietly, pool_exhausted, terminate
from dataflow.testing.isolation.rollback import TDDTransactionManager

if TYPE_CHECKING:
    from dataflow.testing.isolation.server_protocol import Server
    from dataflow.testing.settings import Settings

# Seconds that a run waits for a server that is just being started again.
RESTART_PATIENCE_S = 10.0

# What asyncpg raises on a connection that the server, or the network, has ended.
_BROKEN = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)


ChooseServer = Callable[["Settings", str | None], Awaitable["Server"]]


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
        emit: Emit = ignore,
        who: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._choose_server = choose_server
        self._transactions = transactions
        self._emit = emit
        self._who = who
        self._server: Server | None = None
        self._choosing: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._pools = LoopPools(self._make_pool)
        self._plain_pools = LoopBound(self._make_plain_pool, asyncpg.Pool.close)
        self._active: dict[TDDTestContext, tuple[TestConnection, ConnectionPool]] = {}
        self._beside: dict[PhysicalConnection, TDDTestContext] = {}
        self._polluted: str | None = None

    @property
    def server(self) -> Server | None:
        """The server in use, or None before the first connection."""
        return self._server

    @property
    def connection_pool(self) -> ConnectionPool | None:
        """The pool of the running loop; outside of one, of the loop used last. None before the first use."""
        return self._pools.existing()

    @property
    def active_connections(self) -> Mapping[str, TestConnection]:
        """The connections that tests hold now, by test id (a second one of the same id is ``id#2``)."""
        named: dict[str, TestConnection] = {}
        for context, (connection, _pool) in self._active.items():
            name, number = context.test_id, 1
            while name in named:
                number += 1
                name = f"{context.test_id}#{number}"
            named[name] = connection
        return MappingProxyType(named)

    @property
    def active_contexts(self) -> tuple[TDDTestContext, ...]:
        """Whoever holds a connection now, of the pool or beside it."""
        return (*self._active, *self._beside.values())

    async def initialize(self, connection_string: str | None = None) -> None:
        """Choose the server and open the pool's first connection. Calling it again does no harm.

        :param connection_string: URL of the test database, instead of what the settings say.
        :raises ServerError: no usable server; the message lists what was tried.
        """
        await self.ensure_server(connection_string)
        await self._pools.of_running_loop().fill()

    async def ensure_server(self, connection_string: str | None = None) -> Server:
        """The server in use; the first call chooses it, also when many come at a time."""
        if self._server is not None and connection_string is None:
            return _living(self._server)
        lock = self._choosing.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock:  # the waits of its holder are bounded
            if self._server is not None and connection_string is None:
                return _living(self._server)
            if self._server is not None:
                await self.close()
            started = perf_counter()
            server = self._server = await self._choose_server(self._settings(), connection_string)
            duration_ms = (perf_counter() - started) * 1e3
            self._emit(ServerChosen(server.description, server.attempts, duration_ms))
            return server

    async def get_test_connection(self, context: TDDTestContext) -> TestConnection:
        """A connection that belongs to `context` until `cleanup_test_connection`. No transaction is begun.

        :raises PoolExhausted: none became free in time; the message names the holders.
        :raises ServerError: the server cannot be used.
        """
        if context in self._active:
            return context.connection
        await self.ensure_server()
        while True:
            connection, used_before = await self._checkout(context)
            if not used_before or await _answers(connection):
                return connection
            await self._give_back(context)

    async def begin(self, context: TDDTestContext) -> TestConnection:
        """A connection for `context`, inside the transaction that isolates its test.

        :raises DatabaseNotClean: an earlier test may have left rows behind.
        """
        if self._server is None:
            await self.ensure_server()
        if self._polluted is not None:
            raise _not_clean(self._polluted)
        started = perf_counter()
        while True:
            connection, used_before = await self._checkout(context)
            try:
                await self._transactions.begin_test_transaction(connection, context)
            except BaseException as error:
                await self._give_back(context)
                if used_before and isinstance(error, _BROKEN):
                    continue  # the server had ended it between two tests: take another one
                raise
            context.setup_s = perf_counter() - started
            return connection

    async def end(self, context: TDDTestContext) -> None:
        """Roll back the test's transaction and take its connection back.

        :raises TransactionEnded: the test left its transaction; the next tests are refused.
        """
        connection = context.connection
        started = perf_counter()
        problem: str | None = None
        try:
            problem = await self._roll_back(connection, context)
        except TransactionEnded as error:
            problem = self._polluted = error.what
            raise
        finally:
            await self._give_back(context)
            harmless = self._polluted is None
            self._emit(_released(context, connection, perf_counter() - started, problem, harmless))

    async def cleanup_test_connection(self, context: TDDTestContext) -> None:
        """Take the connection of `context` back, rolling back what is open. Harmless when it has none."""
        if context in self._active:
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
        limit = self._settings().max_beside_pool
        if len(self._beside) >= limit:
            raise pool_exhausted(context, 0, limit, self._beside.values())
        physical = await self._connect()
        self._beside[physical] = context
        return physical

    async def close_connection(self, physical: PhysicalConnection) -> None:
        """Close a connection of `open_connection`. Idempotent."""
        self._beside.pop(physical, None)
        if not physical.is_closed():
            await close_quietly(physical)

    async def asyncpg_pool(self) -> asyncpg.Pool:
        """A plain `asyncpg.Pool` on the test database, one per event loop and closed with it. It commits.

        Its connections are those that the settings allow beside the pool of the tests.
        """
        await self.ensure_server()
        pool = self._plain_pools.of_running_loop()
        await pool
        return pool

    def discard(self, context: TDDTestContext) -> None:
        """Take a connection away from whoever forgot to give it back: close it, without waiting."""
        if context in self._active:
            connection, pool = self._active[context]
            physical = connection.physical
            self._drop(context)
            pool.release(physical, reusable=False)
            terminate(physical)
        for physical in [held for held, holder in self._beside.items() if holder is context]:
            del self._beside[physical]
            terminate(physical)

    async def close(self) -> None:
        """Close everything: contexts become stale, connections are closed, the server is given back."""
        for physical in list(self._beside):
            await self.close_connection(physical)
        for context in list(self._active):
            self._drop(context)
        await self._plain_pools.close_own()
        await self._pools.close_own()
        self.release_server()

    def release_server(self) -> None:
        """Give the server back without an event loop; for the end of a process. Idempotent."""
        for context in list(self._active):
            self._drop(context)
        self._plain_pools.clear()
        self._pools.drop_all()
        self._polluted = None
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _make_pool(self) -> ConnectionPool:
        settings = self._settings()
        return ConnectionPool(
            self._connect,
            min_size=min(1, settings.pool_max_size - 1),
            max_size=settings.pool_max_size,
            timeout=settings.pool_timeout,
        )

    def _make_plain_pool(self) -> asyncpg.Pool:
        settings = self._settings()
        most = max(1, settings.max_beside_pool)
        return asyncpg.create_pool(
            **_without_jit(self._server.dsn.asyncpg_arguments() if self._server else {}),
            min_size=min(3, most),
            max_size=most,
            command_timeout=settings.timeout,
        )

    async def _connect(self) -> PhysicalConnection:
        settings = self._settings()
        server = await self.ensure_server()
        self._pools.make_room(settings.max_connections - len(self._beside))
        try:
            return await connect(
                server.dsn,
                timeout=settings.pool_timeout,
                command_timeout=settings.timeout,
                patience=RESTART_PATIENCE_S,
            )
        except ServerUnreachable:
            _living(server)
            raise

    async def _checkout(self, context: TDDTestContext) -> tuple[TestConnection, bool]:
        pool = self._pools.of_running_loop()
        context.owner = context.owner or self._who()
        physical, used_before = await pool.acquire(context)
        connection = TestConnection(physical, context, self._settings().timeout)
        context.attach(connection)
        self._active[context] = connection, pool
        return connection, used_before

    async def _give_back(self, context: TDDTestContext) -> None:
        connection, pool = self._active.pop(context)
        context.detach()
        physical, reusable = connection.detach()
        if reusable and physical.is_in_transaction():
            reusable = False
        if reusable and connection.log.schema_changed:
            await physical.reload_schema_state()  # cached plans may name tables that are gone
        pool.release(physical, reusable=reusable)
        if not reusable:
            await close_quietly(physical)

    async def _roll_back(self, connection: TestConnection, context: TDDTestContext) -> str | None:
        """Roll back, and say what was wrong with the connection. A broken one the server has rolled back."""
        if context.state is not ContextState.IN_TRANSACTION:
            return None
        if connection.is_closed():
            self._transactions.forget(context)
            return None
        try:
            await self._transactions.end_test_transaction(connection, context)
        except asyncpg.InterfaceError as error:
            connection.terminate()
            return f"{context.test_id}: its connection was closed, because it was still in use: {error}"
        except (*_BROKEN, TimeoutError):
            connection.terminate()
        return None

    def _drop(self, context: TDDTestContext) -> None:
        connection, _pool = self._active.pop(context)
        self._transactions.forget(context)
        context.detach()
        connection.detach()


def _not_clean(problem: str) -> DatabaseNotClean:
    return DatabaseNotClean(
        f"the database may hold rows of an earlier test: {problem}",
        cause="that test left the transaction that isolates it",
        remedy="mend or deselect that test and run again; the embedded server gives each run a new "
        "database, in one of your own look for the rows",
    )


def _living(server: Server) -> Server:
    if server.alive:
        return server
    raise ServerUnreachable(
        f"{server.description} went away in the middle of the run",
        cause="its keeper process was killed, or the machine ran out of memory",
        remedy="run the tests again, a new server starts by itself; the tables that session fixtures made "
        "went with the old one, so the other tests of this run cannot go on",
    )


def _without_jit(arguments: dict[str, Any]) -> dict[str, Any]:
    """Compiling queries costs more than the small queries of tests take."""
    return arguments | {"server_settings": {"jit": "off", **arguments.get("server_settings", {})}}


def _released(
    context: TDDTestContext,
    connection: TestConnection,
    teardown_s: float,
    problem: str | None,
    harmless: bool,
) -> ContextReleased:
    log = connection.log
    return ContextReleased(
        test_id=context.test_id,
        setup_ms=context.setup_s * 1e3,
        schema_ms=log.schema_s * 1e3,
        data_ms=log.data_s * 1e3,
        teardown_ms=teardown_s * 1e3,
        statements=log.count,
        problem=problem,
        harmless=harmless,
    )


async def _answers(connection: TestConnection) -> bool:
    try:
        await connection.physical.execute("SELECT 1")
    except (*_BROKEN, asyncpg.PostgresError):
        return False
    return True
