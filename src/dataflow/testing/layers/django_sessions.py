"""Django's own connections: closing those that a test has, and noting those that other threads open."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as TooLate
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataflow.testing.lease.lease import DatabaseLease

# How long the thread of asynchronous code may take to close a connection, in seconds; it may hang in the test.
_CLOSE_LIMIT_S = 2.0
_THEIRS = ("site-packages", "dist-packages", "/lib/python", "dataflow/testing/")


def let_go(alias: str) -> None:
    """Close this thread's connection, and the pool, if there is one: what comes next is another database."""
    from django.db import connections

    connection = connections[alias]
    connection.close()
    if connection.settings_dict["OPTIONS"].get("pool"):
        connection.close_pool()


def session_pids(aliases: Iterable[str]) -> list[int]:
    """Process ids of this thread's sessions."""
    from django.db import connections

    opened = (connections[alias].connection for alias in aliases)
    return [each.info.backend_pid for each in opened if each is not None and not each.closed]


class Sessions:
    """:param lease: by the name of its database: those that tests have that commit.
    :param stray: is told of a session that another thread opens elsewhere: name of the database, source line.
    """

    def __init__(self, lease: Callable[[str], DatabaseLease | None], stray: Callable[[str, str], None]) -> None:
        self._lease = lease
        self._stray = stray
        self._main = threading.get_ident()
        self._others = False  # another thread has opened one, since they were closed

    @contextmanager
    def watched(self) -> Iterator[None]:
        from django.db.backends.signals import connection_created

        connection_created.connect(self._opened, weak=False)
        try:
            yield
        finally:
            connection_created.disconnect(self._opened)

    def close(self) -> None:
        """Those of the thread in which asynchronous code runs what is synchronous: nothing else would."""
        if not self._others:
            return
        self._others = False
        asgiref = sys.modules.get("asgiref.sync")
        executor = getattr(getattr(asgiref, "SyncToAsync", None), "single_thread_executor", None)
        if executor is not None:
            from django.db import connections

            with suppress(TooLate):
                executor.submit(connections.close_all).result(_CLOSE_LIMIT_S)

    def _opened(self, connection: Any, **_: Any) -> None:
        name = connection.settings_dict["NAME"]
        elsewhere = threading.get_ident() != self._main
        self._others = self._others or elsewhere
        if (lease := self._lease(name)) is not None:
            lease.note_opened(connection.connection.info.backend_pid, _caller())
        elif elsewhere:
            self._stray(name, _caller())


def _caller() -> str:
    """File and line of the innermost code that is neither installed nor ours; where there is none, the thread:
    asynchronous code runs what is synchronous in one of its own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not any(part in frame.f_code.co_filename for part in _THEIRS):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return f"thread {threading.current_thread().name}"
