"""Removing what servers of other programs left in the cache: each takes some 50 MB for good."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dataflow.testing.server.files import remove_tree
from dataflow.testing.server.layout import Instance
from dataflow.testing.server.lease import EmbeddedOptions, locate
from dataflow.testing.server.locks import FileLock


def prune_servers(options: EmbeddedOptions) -> tuple[Path, ...]:
    """Remove the files of servers that do not run, and of programs that no server is left of; returns which.

    The server that test runs of this installation share is kept. Only the holder of a server's lock removes its
    files, and the kernel keeps that lock for whoever lives. Pristine clusters and copies of programs go when no
    server of theirs is left; whoever starts one in that instant makes them anew.
    """
    place = locate(options)
    removed = [path for path in _directories(place.layout.servers) if path != place.instance.directory]
    removed = [path for path in removed if _remove_server(Instance(path))]
    kept = {place.key, *(path.name.partition("-port")[0] for path in _directories(place.layout.servers))}
    for room in (place.layout.pristine(place.key).parent, place.layout.binaries(place.key).parent):
        for path in [path for path in _directories(room) if path.name not in kept]:
            remove_tree(path)
            removed.append(path)
    return tuple(removed)


def _remove_server(instance: Instance) -> bool:
    if not instance.control.is_dir():
        return False
    with FileLock(instance.start_lock) as starting, FileLock(instance.keeper_lock) as running:
        holder = f"process {os.getpid()}, which removes it"
        if not (starting.try_acquire(holder) and running.try_acquire(holder)):
            return False
        remove_tree(instance.directory)
        return True


def _directories(room: Path) -> Iterator[Path]:
    yield from sorted(path for path in room.glob("*/") if not path.name.startswith("."))
