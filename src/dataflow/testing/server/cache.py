"""Which directory of the machine is ours, and whether it can be trusted."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from dataflow.testing.errors import ServerStartFailed
from dataflow.testing.server.files import is_there, make_directory
from dataflow.testing.server.owner import Owner, unreachable_part

NAME = "dataflow-tdd"
_OPTION = "DATAFLOW_TDD_CACHE_DIR"


def cache_root(given: Path | None, owner: Owner | None) -> Path:
    """The cache directory: the one given, or the first usual place that this process can write to and the
    server's user can reach. It is made if it is not there.

    :raises ServerStartFailed: the place is somebody else's, open to others, or out of the server's reach.
    """
    root = given if given is not None else _usual_place(owner)
    try:
        # Whatever is made now has this mode: a tight umask must not shut the server's user out.
        make_directory(root, 0o755 if owner else 0o700)
    except OSError as error:
        raise ServerStartFailed(
            f"the cache directory {root} cannot be made: {error.strerror}",
            remedy="name a directory that you can write to",
            option=_OPTION,
        ) from error
    if "," in str(root):
        raise ServerStartFailed(
            f"the cache directory {root} is not used: there is a comma in its path",
            cause="drivers take what is between commas for several hosts",
            remedy="name a directory without one",
            option=_OPTION,
        )
    _check_ours(root)
    if owner is not None:
        _check_reachable(root, owner)
    return root.resolve()


def _usual_place(owner: Owner | None) -> Path:
    places = [_user_cache()]
    if owner is not None:
        places.append(Path("/var/cache") / NAME)
    for place in places:
        if _writable(place) and (owner is None or unreachable_part(place, owner) is None):
            return place
    return Path(tempfile.gettempdir()) / f"{NAME}-{_uid()}"


def _user_cache() -> Path:
    if sys.platform.startswith("linux"):
        # What platformdirs would say, without the milliseconds of its import.
        configured = os.environ.get("XDG_CACHE_HOME", "")
        return Path(configured if configured.startswith("/") else _home() / ".cache") / NAME
    from platformdirs import user_cache_path

    return Path(user_cache_path(NAME, appauthor=False))


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and a user without an entry in /etc/passwd: as containers have them
        return Path("/nonexistent")


def _writable(place: Path) -> bool:
    existing = next((p for p in (place, *place.parents) if is_there(p)), place)
    return os.access(existing, os.W_OK | os.X_OK)


def _uid() -> int:
    return 0 if sys.platform == "win32" else os.geteuid()


def _check_ours(root: Path) -> None:
    # In a place that others can write to, a directory of this name may have been put there by somebody else,
    # who could then choose the programs and the data that we run.
    if sys.platform == "win32":
        return
    problem = _problem(root.lstat()) or _problem(root.stat())
    if problem:
        raise ServerStartFailed(
            f"the cache directory {root} is not used: {problem}",
            cause="it was made by another user, or its permissions were opened",
            remedy="remove it or correct its permissions, or name another directory",
            option=_OPTION,
        )


def _problem(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return None if status.st_uid == _uid() else f"it is a link made by user id {status.st_uid}"
    if not stat.S_ISDIR(status.st_mode):
        return "it is not a directory"
    if status.st_uid != _uid():
        return f"it belongs to user id {status.st_uid}, and this process runs as {_uid()}"
    # A group of the user's own (same number) has no other members.
    private_group = status.st_gid == status.st_uid
    if status.st_mode & (stat.S_IWOTH if private_group else stat.S_IWOTH | stat.S_IWGRP):
        return "others may write to it"
    return None


def _check_reachable(root: Path, owner: Owner) -> None:
    blocked = unreachable_part(root.resolve(), owner)
    if blocked is not None:
        raise ServerStartFailed(
            f"the cache directory {root} is not used: user {owner.name} cannot pass through {blocked}",
            cause="this process is root, PostgreSQL refuses to run as root and so runs as that user",
            remedy=f"name a directory that everybody may pass through, or chmod o+x {blocked}",
            option=_OPTION,
        )
