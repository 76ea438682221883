"""The processes that belong to a cache directory, as the system lists them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from tests.waiting import wait_until

KEEPER = "server.keeper"
POSTGRES = "bin/postgres"


def processes_of(cache: Path, word: str = "") -> list[psutil.Process]:
    """Keepers and servers: both have the path of their cache in their command lines. KEEPER and POSTGRES tell
    them apart; a child of postgres has its parent's command line until it has set its own title."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if str(cache) in command and word in command and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def servers_of(cache: Path) -> list[psutil.Process]:
    """The postgres processes of a cache, without the children that they fork."""
    found = processes_of(cache, POSTGRES)
    numbers = {process.pid for process in found}
    return [process for process in found if _parent(process) not in numbers]


def wait_gone(cache: Path) -> None:
    wait_until(lambda: not processes_of(cache), f"the processes of {cache} end")


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return 0
