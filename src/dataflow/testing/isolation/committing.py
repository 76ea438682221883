"""The connection of a test that really commits: a plain one, to the database that belongs to the test."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from dataflow.testing.events import ContextReleased
from dataflow.testing.isolation.connecting import connect
from dataflow.testing.isolation.connection import TestConnection
from dataflow.testing.isolation.context import TDDTestContext
from dataflow.testing.isolation.outcomes import Finished, released
from dataflow.testing.isolation.pool import close_quietly

if TYPE_CHECKING:
    from dataflow.testing.sandbox.recording import Recorder
    from dataflow.testing.settings import Settings


async def connect_committing(context: TDDTestContext, settings: Settings, recorder: Recorder) -> None:
    """Open the context's connection, in no transaction.

    :param recorder: is told what is sent on it.
    :raises ServerError: the server cannot be entered.
    """
    assert context.database is not None
    started = perf_counter()
    physical = await connect(
        context.database.dsn, timeout=settings.pool_timeout, command_timeout=settings.timeout
    )
    connection = TestConnection(physical, context, settings.timeout)
    connection.opened = True
    context.attach(connection, recorder)
    context.setup_s = perf_counter() - started


async def disconnect_committing(context: TDDTestContext) -> ContextReleased:
    """Close it; returns what it cost."""
    connection = context.connection
    started = perf_counter()
    physical, _reusable = connection.detach()
    context.detach()
    if not physical.is_closed():
        await close_quietly(physical)
    event = released(context, connection, Finished(perf_counter() - started))
    return event._replace(isolated=True, committing=True)
