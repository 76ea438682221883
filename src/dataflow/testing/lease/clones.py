"""Copies of a template: a few made ahead in the background, so that no test waits for one."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from psycopg import Error

from dataflow.testing.errors import ServerError
from dataflow.testing.lease.carried import Setting, read_settings, set_all
from dataflow.testing.lease.owner import database_name
from dataflow.testing.server.dropping import drop_database
from dataflow.testing.template.databases import create

if TYPE_CHECKING:
    import psycopg

_CLOSE_LIMIT_S = 30.0

log = logging.getLogger("dataflow.testing")


class Clones:
    """Makes databases from one template and drops them again, mostly in a thread with a connection of its own.

    :param enter: opens a connection to a database, or for None to that for administration, with CREATEDB.
    :param template: to copy; None for an empty one. :param owner: role that will own the copies.
    :param token: of this process, in their names. :param most: how many are kept ready.
    :param earlier: other databases that are ours, and are dropped in the end at the latest.
    """

    def __init__(
        self,
        enter: Callable[[str | None], psycopg.Connection],
        *,
        template: str | None,
        owner: str,
        token: str,
        most: int,
        earlier: Collection[str] = (),
    ) -> None:
        self._enter = enter
        self._template = template or "template0"
        self._owner = owner
        self._token = token
        self._most = most
        self._state = threading.Condition()
        self._ready: deque[str] = deque()
        self._doomed: deque[str] = deque()
        self._known: set[str] = set(earlier)
        self._number = 0
        self._wanted = 0
        self._ahead = False
        self._closed = False
        self._failure: Exception | None = None
        self._settings: tuple[Setting, ...] | None = None
        self._thread: threading.Thread | None = None

    def take(self, limit_s: float, *, ahead: bool = True) -> str:
        """The name of a fresh copy, made ahead if there is one.

        :param ahead: more will be needed, and from now on some are kept ready.
        :param limit_s: seconds to wait for one.
        :raises ServerError: none could be made, or not in time.
        """
        deadline = monotonic() + limit_s
        with self._state:
            self._wanted += 1
            self._ahead = self._ahead or ahead
            self._failure = None  # what went wrong in the background, before anybody asked, may be over
            self._start()
            self._state.notify_all()
            try:
                while not self._ready:
                    failure, self._failure = self._failure, None
                    if failure is not None:
                        raise _not_made(self._template, failure) from failure
                    if self._closed or not self._state.wait(deadline - monotonic()):
                        raise ServerError(
                            f"waited {limit_s:.0f} s for a copy of {self._template}",
                            cause="the template is very large, or the server's disk is slow",
                            remedy="make the seed data smaller, or keep it out of the template",
                        )
                return self._ready.popleft()
            finally:
                self._wanted -= 1
                self._state.notify_all()  # one less is ready: the next one is made ahead

    @contextmanager
    def borrow(self, limit_s: float) -> Iterator[str]:
        """A copy to look at; it must be left as it is."""
        name = self.take(limit_s)
        try:
            yield name
        finally:
            with self._state:
                self._ready.append(name)

    def give_up(self, name: str) -> None:
        """Have a copy dropped, soon."""
        with self._state:
            self._doomed.append(name)
            self._start()
            self._state.notify_all()

    def close(self, connection: psycopg.Connection | None) -> tuple[str, ...]:
        """Stop, and drop all copies over `connection`; returns those that are still there. Idempotent."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        if self._thread is not None:
            self._thread.join(_CLOSE_LIMIT_S)
        with self._state:  # the thread may hang in a statement, and go on
            left = sorted(self._known)
        deadline = monotonic() + _CLOSE_LIMIT_S
        for name in left:
            if connection is None or connection.closed:
                break
            if monotonic() > deadline:
                log.warning("%s is left to the next run: dropping databases takes too long", name)
                continue
            try:
                self._drop(name, connection)
            except (Error, ServerError) as error:
                log.warning("%s could not be dropped, and is left to the next run: %s", name, error)
        with self._state:
            return tuple(self._known)

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="dataflow-tdd clones", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        session = _Session(self._enter)
        while True:
            with self._state:
                while not self._closed and not self._has_work():
                    self._state.wait()
                if self._closed:
                    break
                doomed = self._doomed.popleft() if self._doomed and not self._hurried() else None
            try:
                if doomed is None:
                    session.use(self._make)
                else:
                    session.use(partial(self._drop, doomed))
            except Exception as error:
                log.debug("a copy of %s could not be made or dropped: %s", self._template, error)
                if doomed is None:
                    self._fail(error)
        session.close()

    def _drop(self, name: str, connection: psycopg.Connection) -> None:
        drop_database(connection, name, self._enter)
        with self._state:
            self._known.discard(name)

    def _has_work(self) -> bool:
        return (
            bool(self._doomed)
            or self._hurried()
            or (self._failure is None and len(self._ready) < self._most * self._ahead)
        )

    def _hurried(self) -> bool:
        """Somebody waits for a copy."""
        return self._failure is None and len(self._ready) < self._wanted

    def _make(self, connection: psycopg.Connection) -> None:
        with self._state:
            self._number += 1
            name = database_name(self._token, self._number)
            self._known.add(name)
        create(connection, name, self._owner, self._template)
        try:
            if self._settings is None:
                self._settings = read_settings(connection, self._template)
            set_all(connection, name, self._settings)
        except BaseException:
            self.give_up(name)
            raise
        with self._state:
            self._ready.append(name)
            self._state.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._state:
            self._failure = error
            self._state.notify_all()


class _Session:
    """A connection that is opened when it is needed, and once more when it turns out to be broken."""

    def __init__(self, enter: Callable[[None], psycopg.Connection]) -> None:
        self._enter = enter
        self._connection: psycopg.Connection | None = None

    def use(self, work: Callable[[psycopg.Connection], None]) -> None:
        known = self._connection
        if known is not None and not known.closed:
            try:
                return work(known)
            except (Error, ServerError):
                if not known.closed:
                    raise
        self._connection = self._enter(None)
        work(self._connection)

    def close(self) -> None:
        if self._connection is not None:
            with suppress(Error):
                self._connection.close()


def _not_made(template: str, error: Exception) -> ServerError:
    known = error if isinstance(error, ServerError) else ServerError(str(error))
    return type(known)(
        f"no copy of {template} could be made: {known.what}",
        cause=known.cause or "the server's disk is full, or the server went away",
        remedy=known.remedy or "look at the server; `dataflow-tdd doctor` tells what it allows",
        option=known.option,
    )
