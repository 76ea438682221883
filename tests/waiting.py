"""Waiting for what happens a moment later: always with a limit, and with words for what did not happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# Far more than it takes, so that a machine under load fails no test.
LIMIT_S = 30.0
_EVERY_S = 0.01


def reached(condition: Callable[[], object], limit_s: float = LIMIT_S) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_EVERY_S)
    return True


def wait_until(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    if not reached(condition, limit_s):
        raise AssertionError(f"waited {limit_s:.0f} s in vain: {what}")


async def until(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """The same, while other tasks of the event loop go on."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s:.0f} s in vain: {what}")
        await asyncio.sleep(_EVERY_S)
