"""Running something in a thread of its own for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def apart(work: Callable[[], T], limit_s: float) -> T:
    """What `work` returns or raises. Its thread may have an event loop of its own, whatever the caller has.

    The thread is not waited for any longer than `limit_s` seconds, and never keeps the process from ending.

    :raises TimeoutError: it has not come back by then.
    """
    answers: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, name="dataflow-tdd diagnosis", daemon=True).start()
    try:
        result, error = answers.get(timeout=limit_s)
    except Empty:
        raise TimeoutError(f"no result within {limit_s:g} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
