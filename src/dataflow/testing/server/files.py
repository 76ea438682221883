"""Small file operations that must not leave something half-done under its final name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def make_directory(path: Path, mode: int, *, uid: int | None = None, gid: int | None = None) -> None:
    """Make `path` with exactly `mode`, whatever the umask; a directory that exists is left as it is."""
    if not path.parent.exists():
        # A parent must let through whoever owns the child.
        make_directory(path.parent, mode if uid is None else 0o755)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:  # it was there, or another process was faster
        return
    path.chmod(mode)
    if uid is not None and gid is not None:
        os.chown(path, uid, gid)


def write_whole(path: Path, text: str) -> None:
    """Readers see the old text or the new one, never a part."""
    working = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(working, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as stream:
        stream.write(text)
    working.replace(path)


def is_there(path: Path) -> bool:
    """Whether `path` exists as far as this process may know; a directory closed to us is not an error."""
    try:
        return path.exists()
    except OSError:
        return False


def publish(working: Path, target: Path) -> None:
    """Give a finished directory its final name; when another process was faster, keep that one's."""
    try:
        working.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        remove_tree(working)


def remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 16_384))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def with_tail(message: str, *logs: Path) -> str:
    """`message`, followed by the end of each log that has one."""
    parts = [message]
    for log in logs:
        if text := tail(log):
            parts += [f"the end of {log}:", *(f"    {line}" for line in text.splitlines())]
    return "\n".join(parts)
