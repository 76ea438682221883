"""The keeper's control socket: who is connected, what they say, and that they have gone.

One thread, no waiting: a client that does not read its answers is dropped.
"""

from __future__ import annotations

import logging
import selectors
import socket
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from dataflow.testing.server.protocol import Lines, Message, encode

log = logging.getLogger(__name__)


class Host(Protocol):
    """Who answers."""

    def answer(self, visitor: Visitor, message: Message) -> Message | None:
        """The reply; None closes the connection instead."""

    def gone(self, visitor: Visitor) -> None:
        """The connection ended, for whatever reason."""


class Visitor:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.lines = Lines()


class Reception:
    """Listens, and wakes up for visitors, for `wake` and for nothing else."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._visitors: set[Visitor] = set()
        self._woken, self.waker = socket.socketpair()
        self.waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)

    def listen(self, path: Path) -> tuple[str | int, ...]:
        """Begin to accept; returns the address to connect to. The caller makes sure that `path` is free."""
        if sys.platform == "win32":
            listener = socket.create_server(("127.0.0.1", 0))
            address: tuple[str | int, ...] = ("tcp", *listener.getsockname()[:2])
        else:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(path))
            listener.listen(128)
            address = ("unix", str(path))
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        return address

    def turn(self, timeout_s: float | None) -> bool:
        """Handle what happened within `timeout_s`; False when nothing did."""
        events = self._selector.select(timeout_s)
        for key, _ in events:
            key.data()
        return bool(events)

    def wake(self) -> None:
        """End the current `turn`; safe from other threads."""
        with suppress(OSError):  # full means that it is awake already
            self.waker.send(b"!")

    def close_listener(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def dismiss(self) -> None:
        """Close all connections."""
        for visitor in tuple(self._visitors):
            self._part(visitor)

    def tell(self, visitors: Collection[object], message: Message) -> None:
        """Say something that nobody asked for."""
        for visitor in [v for v in self._visitors if v in visitors]:
            self._reply(visitor, message)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        connection.setblocking(False)
        visitor = Visitor(connection)
        self._visitors.add(visitor)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hear(visitor))

    def _hear(self, visitor: Visitor) -> None:
        if visitor not in self._visitors:
            return  # dismissed earlier in this turn
        try:
            data = visitor.connection.recv(65_536)
            messages = visitor.lines.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data, messages = b"", []
        if not data:
            self._part(visitor)
        for message in messages:
            self._reply(visitor, self._host.answer(visitor, message))

    def _reply(self, visitor: Visitor, reply: Message | None) -> None:
        if reply is None:
            self._part(visitor)
            return
        try:
            visitor.connection.sendall(encode(reply))
        except OSError:
            self._part(visitor)

    def _part(self, visitor: Visitor) -> None:
        if visitor in self._visitors:
            self._visitors.remove(visitor)
            self._selector.unregister(visitor.connection)
            visitor.connection.close()
            self._host.gone(visitor)

    def _drain(self) -> None:
        with suppress(OSError):
            while self._woken.recv(64):
                pass
