"""One `postgres` process: its command line, its start, its end. The process that calls this is its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataflow.testing.errors import ServerStartFailed
from dataflow.testing.server.binaries import Binaries
from dataflow.testing.server.files import with_tail
from dataflow.testing.server.owner import Owner

_POLL_S = 0.0015
_READY = "ready"
# What the parent waits for each step of the end: fast, then immediate, then by force.
_STOP_STEPS_S = 5.0

# Nothing here survives a power cut, on purpose: the data is thrown away anyway. Autovacuum and JIT make
# timings jump; the log keeps what explains a failed start, not every error that a test provokes.
SETTINGS = {
    "fsync": "off",
    # With fsync off this is a write to memory of the system (measured: 4 us per commit), and a killed server
    # loses nothing that was committed.
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "wal_init_zero": "off",
    "min_wal_size": "32MB",
    # Code outside of a test's transaction may wait for a lock that this one holds, in the thread that would end
    # it: without a limit, for ever.
    "lock_timeout": "120s",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    # A test's log must still be there when the test is over, whatever checkpoints come in between.
    "wal_keep_size": "64MB",
    "log_checkpoints": "off",
    "log_min_messages": "log",
    "logging_collector": "off",
    # In the data directory, and so removed with it; in /dev/shm a killed server would leave them for ever.
    "dynamic_shared_memory_type": "mmap",
}
if sys.platform == "linux":  # elsewhere not every version can
    # A statement whose client was killed must not hold its locks until it is done.
    SETTINGS["client_connection_check_interval"] = "500ms"


@dataclass(frozen=True)
class Access:
    """How to reach a server. :param sockets: directory of its UNIX socket, None where there are none.
    :param addresses: loopback addresses to listen on."""

    sockets: Path | None
    port: int
    addresses: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        return str(self.sockets) if self.sockets is not None else self.addresses[0]


def server_arguments(binaries: Binaries, data: Path, access: Access) -> list[str]:
    settings = SETTINGS | {
        "port": str(access.port),
        "listen_addresses": ",".join(access.addresses),
        "unix_socket_directories": str(access.sockets) if access.sockets is not None else "",
    }
    if access.sockets is None:
        del settings["unix_socket_directories"]
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(binaries.postgres), "-D", str(data), *options]


def clean_environment() -> dict[str, str]:
    """For postgres and initdb: nothing of the caller's PG*, locale or preload variables."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"TZ": "UTC", "LC_ALL": "C"}


class Postgres:
    """A started server."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, log: Path) -> None:
        self._process = process
        self._data = data
        self._log = log
        self._watcher: threading.Thread | None = None

    @classmethod
    def start(cls, command: Sequence[str], data: Path, log: Path, owner: Owner | None) -> Postgres:
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd="/",
                env=clean_environment(),
                preexec_fn=_dies_with_parent(),
                **(owner.process_arguments() if owner else {}),
            )
        return cls(process, data, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, deadline: float) -> None:
        """Return as soon as the server accepts connections: line 8 of its pid file says so.

        :raises ServerStartFailed: it ended, or is not ready at `deadline` (monotonic, s); it is gone then.
        """
        while not self._is_ready():
            if self._process.poll() is not None:
                raise ServerStartFailed(
                    with_tail(f"postgres ended with status {self._process.returncode} while starting", self._log)
                )
            if time.monotonic() > deadline:
                self.stop()
                raise ServerStartFailed(
                    with_tail("postgres was not ready in time, and was stopped", self._log),
                    cause="the machine is busy, or recovery after a crash takes long",
                )
            time.sleep(_POLL_S)

    def watch(self, died: Callable[[], None]) -> None:
        """Call `died` from a thread when the process ends. A thread, because not every system can wait
        for a process and for sockets at once."""

        def wait() -> None:
            self._process.wait()
            died()

        self._watcher = threading.Thread(target=wait, name="waits for postgres", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """End the process: sessions are cut off, bounded in time."""
        steps = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL) if sys.platform != "win32" else (signal.SIGTERM,)
        for step in steps:
            if self._process.poll() is not None:
                return
            self._process.send_signal(step)
            if self._ended_within(_STOP_STEPS_S):
                return

    def kill(self) -> None:
        """End the process without giving it a chance to clean up; its children notice and end themselves."""
        self._process.kill()
        self._ended_within(_STOP_STEPS_S)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None or (self._watcher and not self._watcher.is_alive()):
                return True
            time.sleep(_POLL_S)
        return False

    def _is_ready(self) -> bool:
        lines = pid_file(self._data)
        # The first line tells it from a file that a dead predecessor left.
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == _READY


def pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except (OSError, ValueError):
        return []


def _dies_with_parent() -> Callable[[], None] | None:
    """What the new process does before it becomes postgres, so that it stops when its keeper is killed.

    It must run after the change of user, which would undo it; `subprocess` keeps that order.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()
    set_parent_death_signal = 1

    def tie() -> None:
        prctl(set_parent_death_signal, signal.SIGINT)
        if os.getppid() != parent:
            os._exit(1)

    return tie
