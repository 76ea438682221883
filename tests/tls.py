"""A server that is entered through TLS: in front of one that cannot do that itself."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import trustme

from dataflow.testing.dsn import Dsn

_REQUEST_BYTES = 8  # of a client that asks for TLS
_LIMIT_S = 20


@contextmanager
def through_tls(dsn: Dsn) -> Iterator[Dsn]:
    """Where the same database is, on a loopback address and through TLS only. :param dsn: on a UNIX socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    path = f"{dsn.host}/.s.PGSQL.{dsn.port}"

    ready, port = threading.Event(), 0
    loop: asyncio.AbstractEventLoop
    over: asyncio.Event

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(_REQUEST_BYTES)
        writer.write(b"S")
        await writer.start_tls(context)
        behind = await asyncio.open_unix_connection(path)
        await asyncio.gather(_carry(reader, behind[1]), _carry(behind[0], writer))

    async def serve() -> None:
        nonlocal loop, over, port
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(enter, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait(_LIMIT_S)
    try:
        yield replace(dsn, host="127.0.0.1", port=port, parameters=(("sslmode", "require"),))
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(_LIMIT_S)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
        pass
    finally:
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
