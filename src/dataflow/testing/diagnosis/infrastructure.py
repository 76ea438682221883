"""Do the parts work together: mode, manager, connection, transaction, clean-up, in this order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from dataflow.testing.diagnosis.borrowing import stop_if_started, usable_settings
from dataflow.testing.diagnosis.model import Check, Diagnosis, failure, ok, skipped
from dataflow.testing.diagnosis.setup import check_tdd_setup, invalid_settings
from dataflow.testing.errors import SettingsError
from dataflow.testing.events import Event, ServerChosen
from dataflow.testing.runtime import Runtime, runtime

if TYPE_CHECKING:
    from dataflow.testing.isolation.context import TDDTestContext

TITLE = "TDD infrastructure"
TEST_ID = "dataflow-tdd diagnosis"
PARTS = ("database manager", "database connection", "transaction manager", "clean-up")

Step = tuple[str, Callable[[], Awaitable[str]]]


async def check_tdd_infrastructure_status() -> Diagnosis:
    """Take each part of the infrastructure through what a test does with it, and leave it as it was.

    Of connections, one of the pool is used for a moment; a server chosen for this is given back.
    """
    setup = check_tdd_setup()
    mode = setup.checks[0]
    if not setup:
        return Diagnosis(TITLE, (mode, *skip(PARTS, "the first problem has to be solved before")))
    try:
        async with sample_context() as context:
            checks = await run_steps(_steps(runtime(), context))
    except SettingsError as error:
        return Diagnosis(TITLE, (mode, invalid_settings(error), *skip(PARTS, "the settings are invalid")))
    return Diagnosis(TITLE, (mode, *checks))


@asynccontextmanager
async def sample_context() -> AsyncIterator[TDDTestContext]:
    """A context that no report counts; afterwards its connection, and a server chosen for it, are given back.

    :raises SettingsError: the settings cannot be used.
    """
    from dataflow.testing.isolation.context import TDDTestContext

    current = runtime()
    settings = usable_settings(current)
    was_started = current.started
    context = TDDTestContext(TEST_ID)
    with _unheard(current):
        try:
            yield context
        finally:
            manager = current.manager
            manager.discard(context)
            if not was_started and manager.server is not None and not manager.active_contexts:
                server = manager.server
                await current.close()
                stop_if_started(server, settings)


async def run_steps(steps: Sequence[Step]) -> tuple[Check, ...]:
    """Take the steps one after the other; those after a failed one are skipped."""
    checks: list[Check] = []
    for number, (name, step) in enumerate(steps):
        try:
            checks.append(ok(name, await step()))
        except Exception as error:
            checks.append(failure(name, error))
            rest = [left for left, _ in steps[number + 1 :]]
            return (*checks, *skip(rest, f"it needs the {name}"))
    return tuple(checks)


def skip(names: Sequence[str], why: str) -> Iterator[Check]:
    return (skipped(name, why) for name in names)


def _steps(current: Runtime, context: TDDTestContext) -> tuple[Step, ...]:
    """What a test does, step by step; each returns the words for what it found."""

    async def manager() -> str:
        await current.manager.initialize()
        server = current.manager.server
        return f"ready, {server.description}" if server is not None else "ready"

    async def connection() -> str:
        await current.manager.get_test_connection(context)
        await context.connection.fetchval("SELECT 1")
        return "a test connection answers"

    async def transaction() -> str:
        transactions = current.transactions
        await transactions.begin_test_transaction(context.connection, context)
        name = await transactions.create_savepoint(context.connection, context)
        await transactions.rollback_to_savepoint(context.connection, context, name)
        return "a transaction was begun, and a savepoint set and rolled back to"

    async def clean_up() -> str:
        await current.manager.cleanup_test_connection(context)
        if context in current.manager.active_contexts:
            raise RuntimeError("the connection was not taken back")
        return "the transaction was rolled back, and the connection given back"

    return tuple(zip(PARTS, (manager, connection, transaction, clean_up), strict=True))


@contextmanager
def _unheard(current: Runtime) -> Iterator[None]:
    """Keep the events of the sample from the listener: they are nobody's test."""
    listener = current.listener

    def without_sample(event: Event) -> None:
        if not isinstance(event, ServerChosen) and getattr(event, "test_id", None) != TEST_ID:
            listener(event)

    current.listener = without_sample
    try:
        yield
    finally:
        current.listener = listener
