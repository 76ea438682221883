"""Between asyncpg and its transport: what goes through the sandbox, and how a session outlives its event loop.

asyncpg takes the loop that it works in as an argument. `RelayLoop` stands in for it while a connection is opened,
delegates everything, and puts a `Relay` between the driver's protocol and the transport. A relay can be parked:
the socket stays open while the loop ends, and in the next loop the greeting of the server is said again to a new
connection of asyncpg, whose startup message is not sent.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import asyncpg
from asyncpg.protocol import Protocol

from dataflow.testing.isolation.questions import Questions
from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.client import Client
from dataflow.testing.sandbox.session import Session

_READY = ord("Z")
# Seconds that the server gets to take the wish that a statement be cancelled.
_CANCEL_LIMIT_S = 5.0
_AUTHENTICATED = b"R\0\0\0\x08\0\0\0\0"


class Parked(NamedTuple):
    """A session without a loop.

    :param greeting: what the server said before it was ready. :param questions: which of them it has prepared.
    """

    sock: socket.socket
    greeting: bytes
    session: Session
    questions: Questions


class Relay(asyncio.Protocol):
    """The protocol of the real transport.

    :ivar inner: the driver's. :ivar session: None until the server is ready.
    """

    def __init__(self, inner: Any, parked: Parked | None = None) -> None:
        self.inner = inner
        self.session: Session | None = None
        self.client: Client | None = None
        self.outer = _Transport(self)
        self.real: Any = None
        self.greeting = b""
        self._heard = bytearray()
        self._parked = parked
        self._mute = False
        self._cancelling = 0
        self._paused = self._deaf = False
        self._patience: Patience | None = None

    # From the real transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.real = transport
        self.inner.connection_made(self.outer)

    def data_received(self, data: bytes) -> None:
        if self.session is not None:
            self.session.feed(data)
            return
        if isinstance(self.inner, Protocol):
            self._listen(data)
        self.inner.data_received(data)

    def eof_received(self) -> Any:
        return self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.session is not None and not self._mute:
            self.session.hang_up()
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    # From the driver

    def write(self, data: bytes | memoryview) -> None:
        if self._parked is not None:  # the startup message
            parked, self._parked = self._parked, None
            self._resume(parked)
        elif self.client is not None:
            self.client.feed(data)
            if data == wire.TERMINATE:
                self.real.write(data)  # the server ends the session
            elif self._patience is not None:
                self._patience.watch()
        elif not self._mute:
            self.real.write(data)

    def wait_at_most(self, limit_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """From now on the driver's turn may have to wait for others. :param limit_s: seconds."""
        self.wait_no_more()
        if self.client is not None:
            assert self.session is not None, "it has a client"
            self._patience = Patience(self.session, self.client, loop, limit_s)

    def wait_no_more(self) -> None:
        """There are no others any more."""
        if self._patience is not None:
            self._patience.end()
        self._patience = None

    def cancel(self) -> asyncio.Task[None]:
        """Have the server cancel what is under way."""
        asks = _ask_to_cancel(self.real.get_extra_info("socket"), self.greeting)
        task = asyncio.get_running_loop().create_task(asks)
        self.told_later(task)
        return task

    def told_later(self, told: asyncio.Future[None]) -> None:
        """Somebody has the server cancel something. :param told: done when the server knows."""
        self._count(1)
        told.add_done_callback(lambda _told: self._count(-1))

    @property
    def encrypted(self) -> bool:
        return self.real.get_extra_info("ssl_object") is not None

    @property
    def cancels(self) -> bool:
        """The server has not been told yet."""
        return self._cancelling > 0

    def _count(self, more: int) -> None:
        """As long as it is to be told, the end of what is under way is not heard; so nothing else, which that
        could hit, is sent.
        """
        self._cancelling += more
        self._let_flow()

    def pause(self, paused: bool) -> None:
        """By the driver of the test's connection."""
        self._paused = paused
        self._let_flow()

    def _let_flow(self) -> None:
        deaf = self._paused or self._cancelling > 0
        if deaf != self._deaf and not self.real.is_closing():
            self._deaf = deaf
            (self.real.pause_reading if deaf else self.real.resume_reading)()

    def park(self, questions: Questions) -> Parked | None:
        """Take the session out of the loop. None where that cannot be: in TLS there is more than a socket."""
        sock = self.real.get_extra_info("socket")
        if self.session is None or sock is None or self.encrypted:
            return None
        own = socket.socket(fileno=os.dup(sock.fileno()))
        own.setblocking(False)
        if self.client is not None:
            self.client.close()
        self.session.send_to(_nobody)
        self.client, self._mute = None, True
        return Parked(own, self.greeting, self.session, questions)

    def _listen(self, data: bytes) -> None:
        """Keep what the server says between letting us in and being ready."""
        for message in wire.taken(self._heard, data):
            if self.greeting or message == _AUTHENTICATED:
                self.greeting += message
            if message[0] == _READY:
                self._take(Session(self.real.write))

    def _take(self, session: Session) -> None:
        self.session = session
        self.client = session.client(self.inner.data_received)

    def _resume(self, parked: Parked) -> None:
        self.greeting = parked.greeting
        parked.session.send_to(self.real.write)
        self._take(parked.session)
        asyncio.get_running_loop().call_soon(self.inner.data_received, parked.greeting)


async def _ask_to_cancel(server: Any, greeting: bytes) -> None:
    """:param server: the socket of the session. What cannot be cancelled ends by itself."""
    loop = asyncio.get_running_loop()
    with suppress(OSError), socket.socket(server.family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        async with asyncio.timeout(_CANCEL_LIMIT_S):
            await loop.sock_connect(sock, server.getpeername())
            await loop.sock_sendall(sock, wire.cancel_request(greeting))
            await loop.sock_recv(sock, 1)  # it hangs up when it has told the session


class Patience:
    """A driver waits for its turn so long, in seconds, and no longer."""

    def __init__(self, session: Session, client: Client, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        self._session = session
        self._client = client
        self._loop = loop
        self._limit_s = limit_s
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """It has sent something; what it waited for before is over."""
        self.end()
        if self._client.waits:
            self._timer = self._loop.call_later(self._limit_s, self._give_up)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if not self._client.waits:
            return
        if self._session.busy:  # a statement ends by itself, and has a limit of its own
            self._timer = self._loop.call_later(self._limit_s, self._give_up)
            return
        self._client.waited_too_long(self._limit_s)


class CancelsItsOwn(asyncpg.Connection):
    """One whose session has other drivers: cancelling it must not hit a statement of theirs."""

    __slots__ = ()

    # asyncpg's own, which its type stubs do not tell.
    _cancellations: set[Any]

    def _end_of_driver(self) -> tuple[Relay, Client] | None:
        """None: it has the session for itself."""
        raise NotImplementedError

    async def _cancel(self, waiter: asyncio.Future[None], *more: Any) -> None:
        """The server is told only if the statement is under way there; one that waits for its turn is dropped."""
        relay, client = self._end_of_driver() or (None, None)
        if relay is None or client is None or (relay.encrypted and client.at_work):
            if relay is not None:
                relay.told_later(waiter)
            await super()._cancel(waiter, *more)  # type: ignore[misc]  # the stubs do not tell it
            return
        try:
            if client.at_work:
                # It goes on when the connection is terminated, which would forget it half-way.
                await asyncio.shield(relay.cancel())
                _done(waiter)
                await asyncio.gather(*(asyncio.shield(ended) for ended in more if ended is not None))
            else:
                client.drop_waiting()
        except asyncio.CancelledError:
            pass  # it is asyncpg that ends this task
        finally:
            self._cancellations.discard(asyncio.current_task())
            _done(waiter)


def _done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Transport:
    """What the driver writes to."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def write(self, data: bytes | memoryview) -> None:
        self._relay.write(data)

    def writelines(self, parts: list[bytes | memoryview]) -> None:
        self._relay.write(b"".join(parts))

    def pause_reading(self) -> None:
        self._relay.pause(True)

    def resume_reading(self) -> None:
        self._relay.pause(False)

    def set_protocol(self, protocol: Any) -> None:
        self._relay.inner = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._relay.real, name)


class RelayLoop:
    """Stands in for the running loop while one connection is opened.

    :param parked: a session to go on with, in place of a new one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, parked: Parked | None = None) -> None:
        self._loop = loop
        self._parked = parked
        self.relay: Relay | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_unix_connection(self, factory: Callable[[], Any], path: str, **options: Any) -> Any:
        return await self._relayed(self._loop.create_unix_connection, factory, path, **options)

    async def create_connection(self, factory: Callable[[], Any], *where: Any, **options: Any) -> Any:
        return await self._relayed(self._loop.create_connection, factory, *where, **options)

    async def start_tls(self, transport: Any, protocol: Any, *arguments: Any, **options: Any) -> Any:
        relay = self.relay
        assert relay is not None, "it was connected before"
        relay.real = await self._loop.start_tls(relay.real, relay, *arguments, **options)
        return relay.outer

    async def _relayed(self, open_: Any, factory: Callable[[], Any], *where: Any, **options: Any) -> Any:
        relay = self.relay = Relay(factory(), self._parked)
        if self._parked is not None:
            where, options = (), {"sock": self._parked.sock}
        await open_(lambda: relay, *where, **options)
        return relay.outer, relay.inner


def _nobody(_data: bytes) -> None:
    """There is no way to the server now."""
