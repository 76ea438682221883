"""From files on disk to a running server, whatever state a killed predecessor or a power cut left behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dataflow.testing.errors import ServerStartFailed
from dataflow.testing.server import cluster, ports
from dataflow.testing.server.binaries import Binaries
from dataflow.testing.server.cluster import Pristine, Programs
from dataflow.testing.server.files import make_directory, remove_tree
from dataflow.testing.server.layout import SHARED_PORT, Instance, Layout, socket_fits
from dataflow.testing.server.owner import Owner, server_owner, usable_binaries
from dataflow.testing.server.postgres import Access, Postgres, pid_file, server_arguments
from dataflow.testing.server.protocol import TEST_ROLE, KeeperConfig
from dataflow.testing.server.record import Record, boot_id

TEMPORARY_PREFIX = "dataflow-tdd-"
# A killed server's last processes need a moment to notice; until then the next one may not start.
_PREDECESSOR_LIMIT_S = 15.0
_PREDECESSOR_ALIVE = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')

# A new data directory would not help here.
_ADDRESS_TROUBLE = ("could not bind", "could not create any")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """A server that accepts connections. :param secret: password of both roles where trust is impossible."""

    postgres: Postgres
    access: Access
    version: str
    record: Record
    secret: str | None


def bring_up(config: KeeperConfig, instance: Instance) -> Running:
    """Start the server of `instance`, making whatever is not there yet.

    :raises ServerStartFailed: it does not start, not even on a new data directory.
    """
    deadline = time.monotonic() + config.start_timeout_s
    layout = Layout(Path(config.root))
    owner = server_owner()
    binaries = usable_binaries(
        Binaries(Path(config.binaries), config.provider), owner, layout.binaries(config.key)
    )
    pristine = Pristine(layout.pristine(config.key))
    programs = _programs(binaries, owner, pristine)
    secret = _secret(pristine)
    record = Record(instance.record, boot_id())
    end_orphan(instance.data)
    disown(instance.data)
    access = _access(config, instance, owner)
    try:
        trusted = _trustworthy(instance.data, record.load(), boot_id())
        start = _Start(programs, pristine, instance, access, record, secret, deadline)
        return Running(start.run(trusted=trusted), access, programs.version, record, secret)
    except ServerStartFailed:
        remove_sockets(instance, access)
        raise


def start_again(config: KeeperConfig, instance: Instance, before: Running) -> Running:
    """Start a server that died once more, on the data and at the address that its users know.

    :raises ServerStartFailed: it does not start like that; nothing is made anew.
    """
    layout = Layout(Path(config.root))
    owner = server_owner()
    binaries = usable_binaries(
        Binaries(Path(config.binaries), config.provider), owner, layout.binaries(config.key)
    )
    pristine = Pristine(layout.pristine(config.key))
    programs = Programs(binaries, owner, before.version)
    disown(instance.data)
    for stale in before.access.sockets.glob(".s.PGSQL.*") if before.access.sockets else ():
        stale.unlink()
    deadline = time.monotonic() + config.start_timeout_s
    start = _Start(programs, pristine, instance, before.access, before.record, before.secret, deadline)
    return replace(before, postgres=start.again())


def remove_sockets(instance: Instance, access: Access) -> None:
    """Remove the directory that was made only because the usual one has too long a path."""
    if access.sockets is not None and access.sockets != instance.sockets:
        remove_tree(access.sockets)


@dataclass(frozen=True)
class _Start:
    """The attempts, from the cheapest to the surest: the data as it is, a fresh copy, a fresh cluster."""

    programs: Programs
    pristine: Pristine
    instance: Instance
    access: Access
    record: Record
    secret: str | None
    deadline: float

    def run(self, *, trusted: bool) -> Postgres:
        """:param trusted: the data directory that is there may be used."""
        steps = [self._as_it_is] if trusted else []
        steps += [self._from_pristine] if self.pristine.exists() else []
        steps += [self._from_scratch]
        failures: list[ServerStartFailed] = []
        self._rotate_log()
        for step in steps:
            try:
                step()
                return self._patiently()
            except ServerStartFailed as error:
                if any(sign in error.what for sign in _ADDRESS_TROUBLE):
                    raise
                log.warning("%s: %s", step.__name__.replace("_", " ").strip(), error)
                failures.append(error)
        raise _summary(failures)

    def again(self) -> Postgres:
        self._rotate_log()
        return self._patiently()

    def _as_it_is(self) -> None:
        """The data directory of the last time."""

    def _from_pristine(self) -> None:
        cluster.copy_pristine(self.pristine, self.instance.data)
        self.record.reset(cluster.PRISTINE_SPARES)

    def _from_scratch(self) -> None:
        remove_tree(self.pristine.directory)
        cluster.make_cluster(self.instance.data, self.pristine, self.programs, self.secret)
        self.record.reset(cluster.PRISTINE_SPARES)

    def _patiently(self) -> Postgres:
        limit = min(self.deadline, time.monotonic() + _PREDECESSOR_LIMIT_S)
        while True:
            try:
                return self._once()
            except ServerStartFailed as error:
                alive = any(sign in error.what for sign in _PREDECESSOR_ALIVE)
                if not alive or time.monotonic() > limit:
                    raise
            self._rotate_log()
            time.sleep(0.05)

    def _once(self) -> Postgres:
        command = server_arguments(self.programs.binaries, self.instance.data, self.access)
        command += ["-c", f"hba_file={_write_hba(self.instance, self.access)}"]
        postgres = Postgres.start(command, self.instance.data, self.instance.postgres_log, self.programs.owner)
        postgres.wait_ready(self.deadline)
        return postgres

    def _rotate_log(self) -> None:
        # The end of the log goes into errors, so it must not show an earlier run's trouble.
        if self.instance.postgres_log.exists():
            self.instance.postgres_log.replace(self.instance.postgres_log.with_suffix(".log.old"))


def _summary(failures: list[ServerStartFailed]) -> ServerStartFailed:
    """The last failure was on a cluster made anew; the first tells what was wrong before."""
    first, last = failures[0], failures[-1]
    before = f"\nThe same with the data directory found at first: {first.what}" if first is not last else ""
    return ServerStartFailed(
        last.what + before,
        cause=last.cause or "the disk is full, a limit is too low, or the programs do not fit this system",
        remedy=last.remedy or "read the messages; or set TEST_DATABASE_URL to a server that runs already",
        option=last.option,
    )


def hba_lines(access: Access) -> str:
    """Who may come in. Only its owner can enter the directory of the UNIX socket; TCP needs the password."""
    if access.sockets is None:
        return "host all all 127.0.0.1/32 scram-sha-256\n"
    addresses = {"127.0.0.1": "127.0.0.1/32", "::1": "::1/128"}
    hosts = "".join(f"host all {TEST_ROLE} {addresses[a]} scram-sha-256\n" for a in access.addresses)
    return "local all all trust\n" + hosts


def end_orphan(data: Path) -> None:
    """End a postgres whose keeper died without it (where the kernel does not do that), or wait for its end.

    :raises ServerStartFailed: it does not end.
    """
    began = time.monotonic()
    signals = [
        (0.0, signal.SIGINT),
        (_PREDECESSOR_LIMIT_S / 2, signal.SIGQUIT if os.name == "posix" else signal.SIGINT),
    ]
    while (pid := _running_on(data)) is not None:
        waited = time.monotonic() - began
        if signals and waited >= signals[0][0]:
            with suppress(ProcessLookupError):
                os.kill(pid, signals.pop(0)[1])
        if waited > _PREDECESSOR_LIMIT_S:
            raise ServerStartFailed(
                f"waited {waited:.0f} s for an earlier postgres (process {pid}) to end; it runs on {data}",
                remedy=f"end it by hand: kill -QUIT {pid}",
            )
        time.sleep(0.005)


def disown(data: Path) -> None:
    """Make the pid file of a killed server say what is known by now: that process is over.

    Its number may be another program's, or a zombie's where nobody collects zombies (a container without an
    init); then postgres would refuse to start. It takes its own parent's number for stale, and still makes
    sure by other means that no process of the old server is left.
    """
    lines = pid_file(data)
    if lines:
        (data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:], ""]))


def _running_on(data: Path) -> int | None:
    lines = pid_file(data)
    if not lines or not lines[0].isdecimal():
        return None
    pid = int(lines[0])
    # After a crash the number may be another program's by now.
    return pid if str(data) in _command_line(pid) else None


def _command_line(pid: int) -> str:
    if sys.platform == "win32":
        return ""
    if sys.platform.startswith("linux"):
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    command = ["/bin/ps", "-p", str(pid), "-o", "command="]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return done.stdout


def _trustworthy(data: Path, boot_then: str, boot_now: str) -> bool:
    """Whether the data may be used as it is. Written without fsync, it survives a killed server, but not a
    machine that went down: then the pid file is still there, from another boot."""
    if not (data / "PG_VERSION").exists():
        return False
    return not pid_file(data) or boot_then == boot_now


def _programs(binaries: Binaries, owner: Owner | None, pristine: Pristine) -> Programs:
    # The key of a pristine cluster changes with the programs, so its note of their version holds.
    try:
        version = pristine.version_file.read_text()
    except OSError:
        version = cluster.ask_version(binaries, owner)
    return Programs(binaries, owner, version)


def _access(config: KeeperConfig, instance: Instance, owner: Owner | None) -> Access:
    if sys.platform == "win32":
        return Access(None, config.port or ports.free_port(), (ports.LOOPBACK,))
    port = config.port or SHARED_PORT
    addresses = ports.loopback_addresses(config.port) if config.port else ()
    return Access(_socket_directory(instance, port, owner), port, addresses)


def _socket_directory(instance: Instance, port: int, owner: Owner | None) -> Path:
    if socket_fits(instance.sockets, port):
        ids = {"uid": owner.uid, "gid": owner.gid} if owner else {}
        make_directory(instance.sockets, 0o700, **ids)
        for stale in instance.sockets.iterdir():
            stale.unlink(missing_ok=True)  # of a killed server
        return instance.sockets
    return temporary_directory(owner)


def temporary_directory(owner: Owner | None = None) -> Path:
    """A short-named directory, closed to others, for sockets whose usual path is too long for the kernel."""
    parent = tempfile.gettempdir()
    directory = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent if len(parent) < 50 else "/tmp"))  # noqa: S108
    if owner is not None:
        os.chown(directory, owner.uid, owner.gid)
    return directory


def _write_hba(instance: Instance, access: Access) -> Path:
    path = instance.directory / "pg_hba.conf"
    path.write_text(hba_lines(access))
    path.chmod(0o644)
    return path


def _secret(pristine: Pristine) -> str | None:
    """Where there are no UNIX sockets every local user can reach the port: a random password guards it."""
    if sys.platform != "win32":
        return None
    import secrets

    path = pristine.directory.with_name(f"{pristine.directory.name}.secret")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(24))
    return path.read_text()
