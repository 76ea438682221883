"""Who is in the databases of a server without a lease, asked before it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from dataflow.testing.errors import ServerInUse
from dataflow.testing.server.protocol import User

if TYPE_CHECKING:
    from dataflow.testing.server.stock import Administration

# Whoever asks for a stop may have closed a session just before.
LEAVING_S = 0.5
ANSWER_S = 5.0


def visitors_that_stay(administration: Administration, leased: Collection[str]) -> tuple[User, ...]:
    """Who is in a database that is not `leased`, and does not go at once as those do that have just closed.

    :raises ServerInUse: PostgreSQL does not say.
    """
    deadline = time.monotonic() + LEAVING_S
    while True:
        visitors = [visitor for visitor in _asked(administration) if visitor.database not in leased]
        if not visitors or time.monotonic() >= deadline:
            return tuple(visitors)
        time.sleep(0.01)


def _asked(administration: Administration) -> tuple[User, ...]:
    """In a thread: a server that hangs must not make the keeper hang."""
    answers: SimpleQueue[tuple[User, ...] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(administration.visitors())
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, name="asks who is in", daemon=True).start()
    answer: tuple[User, ...] | Exception
    try:
        answer = answers.get(timeout=ANSWER_S)
    except Empty:
        administration.abandon()
        answer = TimeoutError(f"no answer within {ANSWER_S:g} s")
    if isinstance(answer, Exception):
        raise ServerInUse(
            f"PostgreSQL cannot be asked who uses it: {type(answer).__name__}: {answer}",
            remedy="stop it all the same",
            option="--force",
        )
    return answer
