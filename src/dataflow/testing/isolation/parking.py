"""Connections between two event loops: the session of the server stays, the connection of asyncpg goes."""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

from dataflow.testing.dsn import Dsn
from dataflow.testing.isolation.physical import PhysicalConnection
from dataflow.testing.isolation.relay import Parked
from dataflow.testing.sandbox import wire

# More than one is rarely needed at once; the others only cost the server memory.
MOST = 4

log = logging.getLogger("dataflow.testing")


class Parking:
    """Where sessions wait for the next loop. Loops may run in several threads.

    :param refused: is told once why sessions cannot go on.
    """

    def __init__(self, refused: Callable[[str], None]) -> None:
        self._refused: Callable[[str], None] | None = refused
        self._parked: list[tuple[Dsn, Parked]] = []
        self._leaving = 0
        self._pid = os.getpid()
        self._threads = threading.Lock()

    @property
    def open_size(self) -> int:
        """How many there are, with those that go on just now."""
        return len(self._parked) + self._leaving

    def keep(self, connection: PhysicalConnection, dsn: Dsn) -> bool:
        """Take the session out of the loop that ends; False where that cannot be, or there are enough."""
        if connection.relay is None or connection.is_closed() or connection.pid != self._pid:
            return False
        with self._threads:
            if len(self._parked) >= MOST:
                return False
            parked = connection.relay.park(connection.questions)
            if parked is None:
                self._say_why()
                return False
            self._parked.append((dsn, parked))
        connection.terminate()
        log.debug("parked a connection")
        return True

    def _say_why(self) -> None:
        refused, self._refused = self._refused, None
        if refused is not None:
            refused("the server is entered through TLS")

    async def go_on(
        self, dsn: Dsn, resume: Callable[[Parked], Awaitable[PhysicalConnection | None]]
    ) -> PhysicalConnection | None:
        """A connection over a session of that address, if there is one that lives."""
        while (parked := self._take(dsn)) is not None:
            try:
                connection = await resume(parked)
            finally:
                with self._threads:
                    self._leaving -= 1
            if connection is not None:
                return connection
        return None

    def _take(self, dsn: Dsn) -> Parked | None:
        """One whose server has said nothing since."""
        with self._threads:
            if self._pid != os.getpid():
                self._parked.clear()
            for place, (known, parked) in enumerate(self._parked):
                if known == dsn:
                    del self._parked[place]
                    if _is_quiet(parked):
                        self._leaving += 1
                        return parked
                    parked.sock.close()
                    break
        return None

    def drop_one(self) -> bool:
        """Make room for another connection; False when there is nothing to drop."""
        with self._threads:
            if not self._parked:
                return False
            _dsn, parked = self._parked.pop(0)
        self._hang_up(parked)
        return True

    def drop_all(self) -> None:
        """Close what waits here; in a forked child without a word, since its parent has the same sessions."""
        with self._threads:
            parked, self._parked = self._parked, []
        for _dsn, each in parked:
            self._hang_up(each)

    def _hang_up(self, parked: Parked) -> None:
        if self._pid == os.getpid():
            with suppress(OSError):  # it may have ended
                parked.sock.send(wire.TERMINATE)
        parked.sock.close()


def _is_quiet(parked: Parked) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(parked.sock, selectors.EVENT_READ)
        return not selector.select(0)
