"""The server of this process: chosen once, watched, and entered again after it was away."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from time import monotonic, perf_counter
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import asyncpg

from dataflow.testing.errors import ServerError, ServerUnreachable
from dataflow.testing.events import Emit, ServerChosen, ServerRestarted
from dataflow.testing.isolation.connecting import connect
from dataflow.testing.isolation.physical import SETTLE_S, PhysicalConnection
from dataflow.testing.isolation.relay import Parked

if TYPE_CHECKING:
    from dataflow.testing.dsn import Dsn
    from dataflow.testing.isolation.server_protocol import Server
    from dataflow.testing.settings import Settings

# Seconds that a run waits for a server that is just being started again. It does so once: after that a server
# that is gone is refused at once, so that a thousand tests do not wait a thousand times.
RESTART_PATIENCE_S = 10.0
# A server that could not be used is not tried again for each of a thousand tests, if trying takes that long.
_SLOW_FAILURE_S = 1.0
_FAILURE_LASTS_S = 10.0

ChooseServer = Callable[["Settings", "Dsn | None"], Awaitable["Server"]]

log = logging.getLogger("dataflow.testing")


class ChosenServer:
    """Chooses at the first need, whoever comes first: many tasks, loops and threads get the same server."""

    def __init__(self, settings: Callable[[], Settings], choose: ChooseServer, emit: Emit) -> None:
        self._settings = settings
        self._choose = choose
        self._emit = emit
        self._choosing: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._threads = threading.Lock()
        self.current: Server | None = None
        self._dsn: Dsn | None = None
        self._gone = False
        self._failed: tuple[object, ServerError, float] | None = None
        self._restarts = 0
        self._up_since: object = None
        self.suspect = False  # somebody found a connection ended: it is worth asking why

    def fits(self, dsn: Dsn | None) -> bool:
        """Whether the server in use is what `dsn` asks for; None: any."""
        return self.current is not None and dsn in (None, self._dsn)

    async def ensure(self, dsn: Dsn | None = None) -> Server:
        """The server in use; the first call chooses it. One of another address must have been released before.

        :raises ServerError: none can be used, or the one in use has gone.
        """
        if self.current is not None:
            return living(self.current)
        lock = self._choosing.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock:  # the waits of its holder are bounded
            if self.current is not None:
                return living(self.current)
            started = perf_counter()
            server = await self._choose_once(dsn)
            return self._adopt(server, dsn, (perf_counter() - started) * 1e3)

    async def connect(self) -> PhysicalConnection:
        """Open a connection. While the server is being started again, this waits for it.

        :raises ServerError: it cannot be entered.
        """
        server = await self.ensure()
        settings = self._settings()
        refusals: list[str] = []
        try:
            connection = await connect(
                server.dsn,
                timeout=settings.pool_timeout,
                command_timeout=settings.timeout,
                patience=0.0 if self._gone else RESTART_PATIENCE_S,
                worth_waiting=lambda: server.alive,
                refused=refusals.append,
            )
        except ServerUnreachable:
            self._gone = self.suspect = True
            living(server)
            raise
        self._gone = False
        if self._up_since is None or self.suspect:
            await self._look_for_restart(connection, server, refusals)
        return connection

    async def resume(self, parked: Parked) -> PhysicalConnection | None:
        """Go on with a session of another loop; None when it has ended."""
        settings = self._settings()
        assert self.current is not None, "it was parked for this server"
        try:
            connection = await connect(
                self.current.dsn, timeout=SETTLE_S, command_timeout=settings.timeout, parked=parked
            )
            connection.resumed, connection.questions = True, parked.questions
        except (ServerError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            self.suspect = True
            return None
        return connection

    def release(self) -> None:
        """Give the server back. Idempotent."""
        server, self.current, self._dsn = self.current, None, None
        self._gone, self._restarts, self._up_since = False, 0, None
        self._failed = None
        if server is not None:
            server.close()
            log.debug("gave back: %s", server.description)

    async def _choose_once(self, dsn: Dsn | None) -> Server:
        """Choose. What failed slowly is not tried again for a while: each test would wait for it."""
        asked = (self._settings(), dsn)
        if self._failed is not None and self._failed[0] == asked and monotonic() < self._failed[2]:
            error = self._failed[1]
            raise type(error)(error.what, cause=error.cause, remedy=error.remedy, option=error.option)
        started = perf_counter()
        try:
            return await self._choose(*asked)
        except ServerError as error:
            if perf_counter() - started > _SLOW_FAILURE_S:
                self._failed = asked, error, monotonic() + _FAILURE_LASTS_S
            raise

    def _adopt(self, server: Server, dsn: Dsn | None, duration_ms: float) -> Server:
        with self._threads:
            if self.current is not None:  # a loop in another thread was faster
                server.close()
                return self.current
            self.current, self._dsn = server, dsn
        log.debug("server: %s, ready in %.0f ms; not used: %s", server.description, duration_ms, server.attempts)
        self._emit(ServerChosen(server.description, server.attempts, duration_ms, server.started))
        return server

    async def _look_for_restart(
        self, connection: PhysicalConnection, server: Server, refusals: list[str]
    ) -> None:
        self.suspect = False
        before, restarts = self._up_since, self._restarts
        self._up_since = await _up_since(connection)
        self._restarts = server.restarts
        if before is None or (before == self._up_since and not refusals and restarts == self._restarts):
            return
        why = f": {refusals[0]}" if refusals else ""
        log.debug("the server was away%s", why)
        self._emit(ServerRestarted(f"the server went away during the run and came back{why}"))


async def _up_since(connection: PhysicalConnection) -> object:
    """A value that changes with a restart of the server."""
    try:
        return await connection.fetchval("SELECT pg_postmaster_start_time()", timeout=SETTLE_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return None  # it is no reason to refuse the connection


def living(server: Server) -> Server:
    """
    :raises ServerUnreachable: it is known to have gone for good.
    """
    if server.alive:
        return server
    raise ServerUnreachable(
        f"{server.description} went away in the middle of the run",
        cause="its keeper process was killed, or PostgreSQL died and could not be started again; "
        "perhaps the machine ran out of memory or disk",
        remedy="run the tests again, a new server starts by itself; the tables that session fixtures made "
        "went with the old one, so the other tests of this run cannot go on",
    )
