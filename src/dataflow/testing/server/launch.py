"""Starting a keeper: a process that keeps nothing of its starter's terminal, directory or open files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from dataflow.testing.errors import ServerStartFailed
from dataflow.testing.server import protocol
from dataflow.testing.server.files import make_directory, with_tail
from dataflow.testing.server.layout import Instance
from dataflow.testing.server.protocol import KeeperConfig, Message

# The caller's modules are found last: a user's file named like a module of Python's must not replace it.
_PROGRAM = (
    "import json, sys; sys.path[:] += [p for p in json.loads(sys.argv[2]) if p not in sys.path];"
    "from dataflow.testing.server.keeper import main; main(sys.argv[1])"
)
ROOT = Path(os.sep).absolute()
# The keeper has the same limit and gives the better reasons: let it speak first.
_GRACE_S = 5.0
_DETACHED = 0x00000008 | 0x00000200 if sys.platform == "win32" else 0
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PYTHONHOME",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TMPDIR",
    "USERPROFILE",
)


def launch(config: KeeperConfig, instance: Instance, timeout_s: float) -> None:
    """Start a keeper and return when its server accepts leases.

    :param timeout_s: longest wait, in seconds.
    :raises ServerStartFailed: it did not come up; the reason, or the end of its logs, is in the message.
    """
    if find_spec("psycopg") is None:
        raise ServerStartFailed(
            "the embedded server cannot be administered: psycopg is not installed",
            cause=f"PostgreSQL's programs are there ({config.provider}), the driver that its keeper needs is not",
            remedy='pip install "dataflow-tdd[embedded]"; or set TEST_DATABASE_URL to a server that runs already',
        )
    if not sys.executable:
        raise ServerStartFailed(
            "the embedded server needs a Python interpreter of its own, and sys.executable is empty"
        )
    with instance.keeper_log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, config.dump(), json.dumps(_module_paths())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=_environment(),
            start_new_session=True,
            creationflags=_DETACHED,
        )
    line = _first_line(process, timeout_s + _GRACE_S)
    if line is None:
        raise ServerStartFailed(
            with_tail(
                f"waited {timeout_s:.0f} s for the embedded server to start",
                instance.postgres_log,
                instance.keeper_log,
            ),
            cause="the machine is very busy, or its disk is slow",
        )
    protocol.result(_first_message(line, instance))


def _first_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
    """What the keeper says of its start, None when it says nothing in time. Read in a thread, because not
    every system can wait for a pipe with a limit."""
    said: list[bytes] = []
    pipe = process.stdout
    assert pipe is not None

    def read() -> None:
        with pipe:
            said.append(pipe.readline())

    reader = threading.Thread(target=read, name="reads the keeper's first line", daemon=True)
    reader.start()
    reader.join(timeout_s)
    if sys.platform == "win32":
        process.returncode = 0  # it lives on, on purpose; nobody shall warn of that
    elif said:
        process.wait()  # the process that we started has left the keeper to itself long ago
    else:
        process.kill()
        process.wait()
    return said[0] if said else None


def _first_message(output: bytes, instance: Instance) -> Message:
    messages = protocol.Lines().feed(output)
    if not messages:
        raise ServerStartFailed(
            with_tail("the keeper of the embedded server ended before it could say why", instance.keeper_log)
        )
    return messages[0]


def _module_paths() -> list[str]:
    """Where this process finds modules, without the directories that depend on where it was started."""
    return [str(Path(path).absolute()) for path in sys.path if path]


def _environment() -> dict[str, str]:
    # A server that lives on must not inherit one run's PG*, coverage or warning variables.
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    package_root = str(Path(__file__).resolve().parents[3])
    if _needs_path(package_root):
        kept["PYTHONPATH"] = package_root
    return kept


def _needs_path(package_root: str) -> bool:
    """An installed package is found anyway; site-packages must not come before the standard library."""
    return Path(package_root).name not in ("site-packages", "dist-packages")


def prepare(instance: Instance, *, shared: bool) -> None:
    """Make the directories of a server.

    :param shared: another user's postgres must pass through.
    :raises ServerStartFailed: they cannot be made.
    """
    try:
        make_directory(instance.directory, 0o755 if shared else 0o700)
        make_directory(instance.control, 0o700)
    except OSError as error:
        raise ServerStartFailed(
            f"{error.filename} cannot be made: {error.strerror}",
            cause="the cache directory is not ours to write to, or its disk is full",
            remedy="name a directory that you can write to",
            option="DATAFLOW_TDD_CACHE_DIR",
        ) from None
