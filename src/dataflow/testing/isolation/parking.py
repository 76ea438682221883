"""Connections between two event loops: the session of the server stays, the connection of asyncpg goes."""

from __future__ import annotations

import logging
import os
import selectors
import threading
from contextlib import suppress

from dataflow.testing.dsn import Dsn
from dataflow.testing.isolation.physical import PhysicalConnection
from dataflow.testing.isolation.relay import Parked

# More than one is rarely needed at once; the others only cost the server memory.
MOST = 4

log = logging.getLogger("dataflow.testing")


class Parking:
    """Where sessions wait for the next loop. Loops may run in several threads."""

    def __init__(self) -> None:
        self._parked: list[tuple[Dsn, Parked]] = []
        self._pid = os.getpid()
        self._threads = threading.Lock()

    def __len__(self) -> int:
        return len(self._parked)

    def keep(self, connection: PhysicalConnection, dsn: Dsn) -> bool:
        """Take the session out of the loop that ends; False where that cannot be, or there are enough."""
        if connection.relay is None or connection.is_closed() or connection.pid != self._pid:
            return False
        with self._threads:
            if len(self._parked) >= MOST:
                return False
            parked = connection.relay.park()
            if parked is None:
                return False
            self._parked.append((dsn, parked))
        connection.terminate()
        log.debug("parked a connection")
        return True

    def take(self, dsn: Dsn) -> Parked | None:
        """A session of that address whose server has said nothing since."""
        with self._threads:
            if self._pid != os.getpid():
                self._parked.clear()
            for place, (known, parked) in enumerate(self._parked):
                if known == dsn:
                    del self._parked[place]
                    if _is_quiet(parked):
                        return parked
                    parked.sock.close()
                    break
        return None

    def drop_all(self) -> None:
        """Close what waits here; in a forked child without a word, since its parent has the same sessions."""
        with self._threads:
            parked, self._parked = self._parked, []
        for _dsn, each in parked:
            with suppress(OSError):
                if self._pid == os.getpid():
                    each.sock.send(_TERMINATE)
                each.sock.close()


_TERMINATE = b"X\0\0\0\x04"


def _is_quiet(parked: Parked) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(parked.sock, selectors.EVENT_READ)
        return not selector.select(0)
