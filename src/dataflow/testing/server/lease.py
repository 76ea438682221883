"""A run's side of the embedded server: lease an empty database, starting the server if nobody has.

What it does not do: run SQL, keep a connection to PostgreSQL, or end the server. The keeper does the latter
when nobody needs it any more; nothing is lost when a run is killed.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError, ServerStartFailed
from dataflow.testing.server.binaries import Binaries, default_providers, find_binaries
from dataflow.testing.server.cache import cache_root
from dataflow.testing.server.layout import Instance, Layout, server_key
from dataflow.testing.server.link import KeeperGone, Link, answers, open_link
from dataflow.testing.server.locks import FileLock
from dataflow.testing.server.owner import server_owner
from dataflow.testing.server.protocol import ADMIN_ROLE, TEST_ROLE, KeeperConfig, Message

# The longest that a running keeper may take for one answer; it makes a database in about 20 ms.
ANSWER_LIMIT_S = 30.0
_RETRY_S = 0.01


@dataclass(frozen=True)
class EmbeddedOptions:
    """What can be chosen about the embedded server.

    :param cache_dir: where programs, data directories and sockets are kept; the user's cache by default.
    :param binaries: directory with `initdb` and `postgres`; found by itself by default.
    :param idle_s: seconds that the server outlives its last lease; 0 stops it at once.
    :param start_timeout_s: longest wait for a start, in seconds.
    """

    cache_dir: Path | None = None
    binaries: Path | None = None
    idle_s: float = 600.0
    start_timeout_s: float = 60.0


class Place(NamedTuple):
    """Which server the options mean, whether it runs or not."""

    options: EmbeddedOptions
    layout: Layout
    key: str
    binaries: Binaries
    instance: Instance
    port: int | None

    def keeper_config(self, *, pinned: bool) -> KeeperConfig:
        return KeeperConfig(
            root=str(self.layout.root),
            key=self.key,
            binaries=str(self.binaries.directory),
            provider=self.binaries.provider,
            port=self.port,
            idle_s=self.options.idle_s,
            pinned=pinned,
            start_timeout_s=self.options.start_timeout_s,
        )


class EmbeddedLease:
    """A right to a database while the control connection is open: the kernel closes it with the process.

    :ivar dsn: the leased database, as the test role, which owns it. :ivar admin_dsn: the same as superuser.
    :ivar version: of PostgreSQL, such as "18.6". :ivar provider: where its programs come from.
    :ivar started: whether the server had to be started for this lease. :ivar restarts: how often it was started
        again since, because it had died; the keeper says so with a line, `alive` reads it.
    """

    def __init__(self, link: Link, answer: Message, *, started: bool) -> None:
        self._link = link
        self._pid = os.getpid()
        self._closed = False
        # From here on the connection is only watched.
        link.connection.setblocking(False)
        self.dsn = database_dsn(answer, TEST_ROLE)
        self.admin_dsn = database_dsn(answer, ADMIN_ROLE)
        self.version = str(answer["version"])
        self.provider = str(answer["provider"])
        self.started = started
        self.restarts = 0

    @property
    def alive(self) -> bool:
        """False once the keeper has gone, and the database with it. Does not wait."""
        if self._closed:
            return False
        try:
            told = self._link.connection.recv(4096)
            self.restarts += told.count(b"\n")
            return told != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Give the database back. In a forked child this only forgets the connection: the parent keeps it."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self._pid:
            # Copies of the descriptor in forked children must not keep the lease.
            with suppress(OSError):
                self._link.connection.shutdown(socket.SHUT_RDWR)
        self._link.close()


def lease_database(options: EmbeddedOptions, *, what: str) -> EmbeddedLease:
    """A fresh, empty database that nobody else uses.

    :param what: who asks, for `server status` and for messages, such as "pytest tests/unit".
    :raises ServerError: `BinariesNotFound`, `ServerStartFailed`, or what the keeper refused.
    """
    place = locate(options)
    who = {"pid": os.getpid(), "what": what, "cwd": _directory(), "idle_s": options.idle_s}
    link, answer, started = converse(place, "lease", who)
    return EmbeddedLease(link, answer, started=started)


def locate(options: EmbeddedOptions, port: int | None = None) -> Place:
    """
    :raises ServerError: there are no programs, or the cache directory cannot be used.
    """
    owner = server_owner()
    layout = Layout(cache_root(options.cache_dir, owner))
    binaries = find_binaries(default_providers(options.binaries, os.environ.get("PATH", "")))
    program = binaries.postgres.stat()
    key = server_key(binaries.directory.resolve(), program.st_size, program.st_mtime_ns)
    return Place(options, layout, key, binaries, layout.instance(key, port), port)


def converse(place: Place, do: str, fields: Message, *, pinned: bool = False) -> tuple[Link, Message, bool]:
    """Ask the keeper of `place`, starting it when there is none: the link, its answer, whether it was started.

    A keeper that is just stopping closes the connection; then the next one is started.
    """
    deadline = time.monotonic() + place.options.start_timeout_s
    started = False
    while True:
        link = open_link(place.instance, ANSWER_LIMIT_S)
        if link is None:
            try:
                started = ensure_running(place, deadline, pinned=pinned) or started
            except FileNotFoundError:  # somebody removed the files of servers that do not run
                if time.monotonic() > deadline:
                    raise
            continue
        try:
            return link, link.ask(do, **fields), started
        except KeeperGone:
            link.close()
        except TimeoutError as error:
            link.close()
            raise _no_answer(place) from error
        except ServerError:
            link.close()
            raise
        if time.monotonic() > deadline:
            raise _no_answer(place)
        time.sleep(_RETRY_S)


def ensure_running(place: Place, deadline: float, *, pinned: bool) -> bool:
    """Start a keeper unless one answers; True when this call started it. One starter at a time, so that
    runs that begin in the same instant share one server."""
    from dataflow.testing.server.launch import launch, prepare

    prepare(place.instance, shared=server_owner() is not None)
    with FileLock(place.instance.start_lock) as lock:
        holder = f"process {os.getpid()}"
        if not lock.acquire(holder, deadline, unless=lambda: answers(place.instance)) or answers(place.instance):
            return False
        launch(place.keeper_config(pinned=pinned), place.instance, place.options.start_timeout_s)
        return True


def database_dsn(answer: Message, role: str) -> Dsn:
    return Dsn(
        host=answer["host"],
        port=answer["port"],
        user=role,
        password=answer["password"],
        database=answer["database"],
    )


def _no_answer(place: Place) -> ServerStartFailed:
    return ServerStartFailed(
        f"the keeper of the embedded server did not answer in time; its log is {place.instance.keeper_log}",
        cause="the machine is very busy, or the server ends as soon as it is started",
        remedy="dataflow-tdd server stop --force, and run again",
    )


def _directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "?"  # removed under us
