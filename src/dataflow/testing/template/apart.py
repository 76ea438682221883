"""Running the user's function in a thread of its own.

The caller may be inside of a running event loop, where neither `asyncio.run` nor much of Django works; and
only so can we stop waiting for a function that does not return.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


def run_apart(work: Callable[[], object], limit_s: float, name: str) -> BaseException | None:
    """Run `work` in a new thread: what it raised, or None.

    :raises TimeoutError: it did not end within `limit_s` seconds. Nothing can end a thread from outside: it is
        left alone, and does not keep the process from ending.
    """
    raised: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as error:
            # Also SystemExit, by which commands end: it must not end the process of the tests.
            raised.append(error)

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise TimeoutError
    return raised[0] if raised else None
