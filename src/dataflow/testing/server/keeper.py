"""The process that owns one server: parent of its `postgres`, host of its leases, and the one who ends it.

It belongs to no run. A connection to its control socket is a lease; when the kernel closes the connection,
because the run closed it or died, the leased database is dropped. Without leases for a while, everything is
stopped.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dataflow.testing.errors import ServerError, ServerInUse, TDDError
from dataflow.testing.server import protocol
from dataflow.testing.server.bringup import bring_up, remove_sockets, start_again, temporary_directory
from dataflow.testing.server.cluster import major
from dataflow.testing.server.files import remove_tree, write_whole
from dataflow.testing.server.layout import Layout, path_fits
from dataflow.testing.server.link import answers, read_state, remove_traces
from dataflow.testing.server.locks import FileLock
from dataflow.testing.server.pace import Pace
from dataflow.testing.server.protocol import KeeperConfig, Message, ServerStatus, State, User
from dataflow.testing.server.reception import Reception, Visitor
from dataflow.testing.server.roster import Roster
from dataflow.testing.server.stock import Administration, Stock
from dataflow.testing.server.visitors import visitors_that_stay

# How often it looks whether its files are still there: a removed cache must not leave a server behind.
CHECK_S = 2.0
# A server that dies under its users is started again, but not for ever.
RESTARTS = 3
RESTARTS_WITHIN_S = 600.0
# Longer logs are cut: a server may live for weeks.
LOG_LIMIT_BYTES = 8 << 20
_LOCK_LIMIT_S = 30.0

log = logging.getLogger(__name__)


class Keeper:
    """State of the keeper process. `run` is its whole life."""

    def __init__(self, config: KeeperConfig) -> None:
        self._config = config
        self._instance = Layout(Path(config.root)).instance(config.key, config.port)
        self._lock = FileLock(self._instance.keeper_lock)
        self._reception = Reception(self)
        self._token = secrets.token_hex(16)
        self._started_at = time.time()
        self._roster = Roster(config.idle_s, config.pinned, time.monotonic())
        self._stopping: str | None = None
        self._state: State | None = None
        self._postgres_ended = False
        self._deaths: list[float] = []

    def run(self, announce: Callable[[Message], None]) -> None:
        """Start, tell how that went, serve, stop."""
        try:
            holder = f"the keeper (process {os.getpid()})"
            deadline = time.monotonic() + _LOCK_LIMIT_S
            if not self._lock.acquire(holder, deadline, unless=lambda: answers(self._instance)):
                announce(protocol.ok())  # another keeper was faster and serves already
                return
            self._forget_predecessor()
            self._running = bring_up(self._config, self._instance)
        except Exception as error:
            log.exception("the server does not start")
            announce(protocol.failure(_as_server_error(error)))
            return
        try:
            self._open()
            announce(protocol.ok())
            self._serve()
        except Exception as error:
            log.exception("the keeper fails")
            announce(protocol.failure(_as_server_error(error)))
        finally:
            self._close()

    def stop(self, why: str) -> None:
        """End after the current turn; safe in a signal handler and from other threads."""
        self._stopping = self._stopping or why
        self._reception.wake()

    def answer(self, visitor: Visitor, message: Message) -> Message | None:
        if self._stopping is not None:
            return None  # a lease given now would be over at once; whoever asks tries again
        try:
            if not hmac.compare_digest(str(message.get("token")), self._token):
                raise ServerError("the keeper was addressed with a wrong token")
            handlers: dict[str, Callable[[Visitor, Message], Message]] = {
                "lease": self._lease,
                "status": self._status,
                "stop": self._stop,
                "pin": self._pin,
                "ensure": self._ensure,
            }
            return handlers[str(message.get("do"))](visitor, message)
        except TDDError as error:
            return protocol.failure(error)
        except Exception as error:
            log.exception("a request failed: %s", message.get("do"))
            return protocol.failure(_as_server_error(error))

    def gone(self, visitor: Visitor) -> None:
        user = self._roster.leave(visitor, time.monotonic())
        if user is not None:
            self._stock.give_back(user.database)

    def _lease(self, visitor: Visitor, message: Message) -> Message:
        if (user := self._roster.user(visitor)) is None:
            database = self._stock.take()
            user = User(
                pid=int(message["pid"]),
                what=str(message["what"]),
                cwd=str(message["cwd"]),
                since=time.time(),
                database=database,
            )
            self._roster.join(visitor, user, float(message["idle_s"]))
        return protocol.ok(database=user.database, **self._place())

    def _status(self, visitor: Visitor, message: Message) -> Message:
        return protocol.ok(**self._current_status().dump())

    def _stop(self, visitor: Visitor, message: Message) -> Message:
        force = bool(message.get("force"))
        users = self._roster.users
        if not force:
            users += visitors_that_stay(self._stock.administration, self._stock.on_lease)
        if users and not force:
            raise ServerInUse(
                f"the server is in use and was not stopped; its users:{protocol.users_text(users)}",
                remedy="wait until they are done, or stop it all the same: their statements will fail",
                option="--force",
            )
        self._stopping = "asked to"
        return protocol.ok()

    def _pin(self, visitor: Visitor, message: Message) -> Message:
        self._roster.pinned = bool(message["pinned"])
        return protocol.ok(**self._current_status().dump())

    def _ensure(self, visitor: Visitor, message: Message) -> Message:
        self._stock.ensure(protocol.TEST_DATABASE)
        return protocol.ok(database=protocol.TEST_DATABASE, **self._place())

    def _place(self) -> Message:
        access, secret = self._running.access, self._running.secret
        return {
            "host": access.host,
            "port": access.port,
            "password": secret,
            "version": self._running.version,
            "provider": self._config.provider,
        }

    def _current_status(self) -> ServerStatus:
        return ServerStatus(
            host=self._running.access.host,
            port=self._running.access.port,
            tcp_port=self._config.port,
            version=self._running.version,
            provider=self._config.provider,
            data=str(self._instance.data),
            pid=os.getpid(),
            started_at=self._started_at,
            idle_since=None if self._roster.users else _wall_clock(self._roster.idle_since),
            stops_at=_wall_clock(self._roster.stops_at()),
            pinned=self._roster.pinned,
            users=self._roster.users,
        )

    def _open(self) -> None:
        running = self._running
        running.postgres.watch(self._postgres_died)
        access, release = running.access, major(running.version)
        administration = Administration(access.host, access.port, running.secret, release)
        if self._config.port is None:
            self._stock = Stock(running.record, administration)
        else:
            # Entered by its address, without leases.
            self._stock = Stock(running.record, administration, spares=0)
            self._stock.ensure(protocol.TEST_DATABASE)
        path = self._instance.keeper_socket
        if not path_fits(path):
            path = temporary_directory() / path.name
        address = self._reception.listen(path)
        self._state = State(address, self._token, os.getpid(), running.access.host)
        self._roster.idle_since = time.monotonic()
        write_whole(self._instance.state, self._state.dump())
        log.info("serving PostgreSQL %s on %s", running.version, running.access.host)

    def _serve(self) -> None:
        checked = time.monotonic()
        pace, quiet = Pace(checked), False
        while self._stopping is None:
            if self._postgres_ended:
                self._revive()
                continue
            chore = self._stock.chore()
            limit = self._patience()
            if chore is not None:
                limit = min(limit, pace.patience(time.monotonic(), quiet=quiet, waits=self._can_wait))
            quiet = not self._reception.turn(limit)
            now = time.monotonic()
            if chore is None:
                pace.nothing_to_do(now)
            elif pace.due(now, quiet=quiet, waits=self._can_wait):
                chore()
                pace.done(time.monotonic(), in_use=bool(self._roster.connections))
            if now - checked >= CHECK_S:
                checked = now
                self._check_files()
            stops_at = self._roster.stops_at()
            if chore is None and stops_at is not None and now >= stops_at:
                self.stop("nobody used it")

    def _postgres_died(self) -> None:
        self._postgres_ended = True
        self._reception.wake()

    def _revive(self) -> None:
        """Start postgres again for those who use it; their databases are still there."""
        self._postgres_ended = False
        now = time.monotonic()
        self._deaths = [*(then for then in self._deaths if now - then < RESTARTS_WITHIN_S), now]
        wanted = self._roster.users or self._roster.pinned
        if not wanted or len(self._deaths) > RESTARTS or not self._instance.data.exists():
            self.stop("postgres ended")
            return
        with suppress(Exception):
            self._stock.administration.close()
        try:
            self._running = start_again(self._config, self._instance, self._running)
        except (TDDError, OSError) as error:
            log.error("postgres ended and does not start again: %s", error)
            self.stop("postgres ended")
            return
        log.warning("postgres ended by itself and was started again (%d)", len(self._deaths))
        self._running.postgres.watch(self._postgres_died)
        self._stock.try_again()
        self._reception.tell(self._roster.connections, protocol.ok(restarted=len(self._deaths)))

    @property
    def _can_wait(self) -> bool:
        """Housekeeping would be in the way of runs, and nobody waits for it."""
        return bool(self._roster.connections) and self._stock.has_spare

    def _patience(self) -> float:
        stops_at = self._roster.stops_at()
        return CHECK_S if stops_at is None else min(CHECK_S, max(0.0, stops_at - time.monotonic()))

    def _check_files(self) -> None:
        if not self._lock.still_valid() or not self._instance.data.exists():
            self.stop("its files were removed")
        for path in (self._instance.postgres_log, self._instance.keeper_log):
            with suppress(OSError):
                if path.stat().st_size > LOG_LIMIT_BYTES:
                    os.truncate(path, 0)

    def _close(self) -> None:
        """Stop: first nobody comes in any more, then postgres ends. The lock goes with the process."""
        log.info("stops: %s", self._stopping)
        self._reception.close_listener()
        ours = self._lock.still_valid()
        if ours and self._state is not None:
            remove_traces(self._instance, self._state)
        self._reception.dismiss()
        with suppress(Exception):
            self._stock.administration.close()
        if ours:
            self._running.postgres.stop()
        else:
            # On an orderly stop it would remove the socket that now belongs to a successor.
            self._running.postgres.kill()
        remove_sockets(self._instance, self._running.access)

    def _forget_predecessor(self) -> None:
        """Clear what a killed keeper could not."""
        state = read_state(self._instance)
        if state is not None:
            remove_traces(self._instance, state)
            if Path(state.sockets) != self._instance.sockets and Path(state.sockets).is_absolute():
                remove_tree(Path(state.sockets))
        with suppress(FileNotFoundError):
            self._instance.keeper_socket.unlink()


def _wall_clock(moment: float | None) -> float | None:
    """A moment of the monotonic clock, by which we decide, as people read it: seconds since the epoch."""
    return None if moment is None else moment + time.time() - time.monotonic()


def _as_server_error(error: Exception) -> TDDError:
    if isinstance(error, TDDError):
        return error
    return ServerError(f"the keeper of the embedded server failed: {type(error).__name__}: {error}")


def _announce(message: Message) -> None:
    """Tell the starter, who reads our standard output, and let go of it. The starter may be gone by now."""
    with suppress(OSError):
        os.write(1, protocol.encode(message))
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    os.close(devnull)


def _leave_parent() -> None:
    """Become nobody's child: the starter may wait for its child at once, and no zombie remains."""
    if hasattr(os, "fork") and os.fork() != 0:
        os._exit(0)


def main(argument: str) -> None:
    """Entry of the process; see `launch` for how it is started.

    :param argument: the configuration as JSON.
    """
    _leave_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s keeper %(process)d %(message)s")
    config = KeeperConfig.load(argument)
    keeper = Keeper(config)
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: keeper.stop(f"signal {number}"))
    keeper.run(_announce)
    logging.shutdown()
    # Nothing may come between the release of the lock and the end of the process.
    os._exit(0)
