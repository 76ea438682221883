"""A schema from a command: any migration tool, in whatever language it is written."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed
from dataflow.testing.masking import mask
from dataflow.testing.template import failure, inputs
from dataflow.testing.template.inputs import shown

_SHOWN_LINES = 30
_SHOWN_BYTES = 16_384
# How long a program may take to end when it is told to, before it is killed.
_GRACE_S = 3.0
# To libpq they would win over the address that the program gets.
_MISLEADING = ("PGSERVICE", "PGHOSTADDR")


class Command:
    """A program, run without a shell. It learns the database's address from its environment: the URL under
    `variable`, and the same in PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE.

    It is looked for beside the Python that runs the tests first, then on PATH: so a tool of the same virtual
    environment is found also where that is not activated.

    :param command: as typed into a shell, but for what a shell makes of it: no ``&&``, no ``$NAME``, no ``*``.
    :param files: what the schema is made from: files, folders, patterns. A change of any makes the template
        stale.
    :param variable: the name of the variable with the URL; several, separated by commas.
    :param directory: where it runs, and what relative `files` are relative to; the current one by default.
    :raises SchemaFailed: `command` or `files` is empty, or a quote in `command` has no end.
    """

    def __init__(
        self,
        command: str,
        files: Sequence[Path | str],
        variable: str = "DATABASE_URL",
        directory: Path | None = None,
    ) -> None:
        self._command = command
        self._words = _words(command)
        self._directory = (directory or Path()).expanduser().absolute()
        self._variables = tuple(filter(None, (name.strip() for name in variable.split(","))))
        if not files:
            raise _without_files(command)
        self._files = tuple(self._directory / Path(path).expanduser() for path in files)

    def fingerprint(self) -> str:
        """The command, the names of its variables, and names and contents of `files`.

        :raises SchemaFailed: some of the files are missing; all are listed.
        """
        parts = (self._command.encode(), ",".join(self._variables).encode())
        return inputs.fingerprint("command", *parts, *inputs.named_contents(inputs.inputs(self._files)))

    def describe(self) -> str:
        return mask(self._command)

    def apply(self, database: Dsn, limit_s: float) -> None:
        """
        :raises SchemaFailed: with exit status and the last lines of output. Programs that the command started
            are ended with it when it takes too long.
        """
        with tempfile.TemporaryFile() as output:
            status = self._run(database, output, limit_s)
            if status == 0:
                return
            raise self._failed(status, limit_s, _last_lines(output, database.password))

    def _run(self, database: Dsn, output: IO[bytes], limit_s: float) -> int | None:
        """Its exit status; None when it took too long."""
        process = self._start(self._environment(database), output)
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.returncode is None:
                _end(process)

    def _start(self, environment: dict[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        if not self._directory.is_dir():
            raise SchemaFailed(
                f"{self.describe()!r} cannot be run in {shown(self._directory)}: there is no such directory",
                remedy="correct the directory of the command",
            )
        try:
            return subprocess.Popen(
                self._words,
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that all that it starts can be ended together
            )
        except OSError as error:
            raise self._not_started(error) from error

    def _environment(self, database: Dsn) -> dict[str, str]:
        beside = str(Path(sys.executable).parent)
        environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
        environment["PATH"] = os.pathsep.join(filter(None, (beside, environment.get("PATH", os.defpath))))
        parts = {
            "PGHOST": database.host,
            "PGPORT": str(database.port),
            "PGUSER": database.user,
            "PGPASSWORD": database.password,
            "PGDATABASE": database.database,
        }
        environment |= {name: value for name, value in parts.items() if value is not None}
        return environment | dict.fromkeys(self._variables, database.url())

    def _failed(self, status: int | None, limit_s: float, output: str) -> SchemaFailed:
        if status is None:
            return SchemaFailed(
                f"the schema was not built within {limit_s:.3g} s: {self.describe()!r} was ended then{output}",
                cause="it takes long, waits for an answer, or for somebody's lock",
                remedy="make it faster, or allow more time",
            )
        how = f"ended with status {status}" if status > 0 else f"was ended by {_signal(-status)}"
        what = f"the schema could not be built: {self.describe()!r} {how}{output}"
        remedy = f"correct it and run again; it ran in {self._directory}, and nothing half-built was kept"
        return failure.with_extension(what, failure.missing_extension(output), remedy)

    def _not_started(self, error: OSError) -> SchemaFailed:
        return SchemaFailed(
            f"{self._words[0]!r} cannot be run: {error.strerror}",
            cause="it is not installed, or neither beside the Python of the tests nor on PATH; no shell is used"
            if isinstance(error, FileNotFoundError)
            else "it is not an executable program",
            remedy=f"install it for {sys.executable}, or write its whole path",
        )


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SchemaFailed(
            f"the command {mask(command)!r} cannot be read: {error}", remedy="close the quote that was opened"
        ) from None
    if not words:
        raise SchemaFailed("the command that builds the schema is empty", remedy="such as: alembic upgrade head")
    return words


def _without_files(command: str) -> SchemaFailed:
    return SchemaFailed(
        f"the command {mask(command)!r} comes without files, so nothing would tell when its template is stale",
        remedy="name what the schema is made from: files, folders or patterns, such as migrations/",
        option="tdd_schema_files, --tdd-schema-files; of a Command its parameter files",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL) if os.name == "posix" else (signal.SIGTERM,):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number) if os.name == "posix" else process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


def _last_lines(output: IO[bytes], password: str | None) -> str:
    """What the program wrote last, indented under a message; "" when it wrote nothing."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _SHOWN_BYTES))
    lines = mask(output.read().decode(errors="replace"), password).splitlines()[-_SHOWN_LINES:]
    return "".join(f"\n    | {line.rstrip()}" for line in lines)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
