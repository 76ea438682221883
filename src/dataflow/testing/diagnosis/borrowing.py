"""The server that tests use, borrowed for a question: afterwards everything is as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError
from dataflow.testing.runtime import Runtime, runtime
from dataflow.testing.settings import Settings, resolve

if TYPE_CHECKING:
    from dataflow.testing.isolation.server_protocol import Server

WHAT = "dataflow-tdd diagnosis"


@asynccontextmanager
async def server_of_tests() -> AsyncIterator[Server]:
    """The server in use; when none is in use yet, the one that tests would get, given back at the end.

    :raises SettingsError: the settings do not say which. :raises ServerError: none can be used.
    """
    current = runtime()
    server = current.manager.server if current.started else None
    if server is not None:
        yield server
        return
    settings = usable_settings(current)
    server = await _choose(settings)
    try:
        yield server
    finally:
        server.close()
        stop_if_started(server, settings)


def usable_settings(current: Runtime) -> Settings:
    """The settings, for connecting.

    :raises SettingsError: they are invalid.
    """
    return current.settings if current.started else resolve(current.sources)


def stop_if_started(server: Server, settings: Settings) -> None:
    """Stop the embedded server if it was started for `server` alone; one that others use by now stays."""
    from dataflow.testing.server.choice import embedded_options
    from dataflow.testing.server.embedded import stop_server

    if server.started:
        with suppress(ServerError):
            stop_server(embedded_options(settings))


async def _choose(settings: Settings) -> Server:
    from dataflow.testing.isolation.connecting import connect
    from dataflow.testing.server.choice import choose

    async def try_login(dsn: Dsn) -> None:
        connection = await connect(dsn, timeout=settings.pool_timeout)
        await connection.close()

    return await choose(settings, None, try_login=try_login, what=WHAT)
