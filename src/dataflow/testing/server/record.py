"""The keeper's own record of databases. Only what is written here is ever dropped or handed out again:
a name that merely looks like ours may be somebody's data."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

from dataflow.testing.server.files import write_whole


class Use(StrEnum):
    """What a recorded database is for."""

    MAKING = "making"  # being created: may be there, may be half there
    SPARE = "spare"  # empty, ready for the next lease
    LEASED = "leased"  # some run's, as long as its connection lasts
    DOOMED = "doomed"  # to be dropped


class Record:
    """The databases of one data directory, written to disk at every change, before the change is made."""

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._boot = boot
        self._uses: dict[str, Use] = {}

    def load(self) -> str:
        """Read the file; what it says of leases is history, since leases end with their keeper.

        :return: the boot of the machine in which it was written, "" when there is no (readable) file.
        """
        try:
            content = json.loads(self._path.read_text())
            uses = {str(name): Use(use) for name, use in content["databases"].items()}
            boot = str(content["boot"])
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return ""
        self._uses = {name: use if use is Use.SPARE else Use.DOOMED for name, use in uses.items()}
        return boot

    def reset(self, spares: tuple[str, ...]) -> None:
        """Begin anew, for a data directory just copied from the pristine one."""
        self._uses = dict.fromkeys(spares, Use.SPARE)
        self.save()

    def names(self, use: Use) -> tuple[str, ...]:
        return tuple(name for name, used in self._uses.items() if used is use)

    def put(self, name: str, use: Use) -> None:
        self._uses[name] = use
        self.save()

    def forget(self, name: str) -> None:
        self._uses.pop(name, None)
        self.save()

    def save(self) -> None:
        write_whole(self._path, json.dumps({"boot": self._boot, "databases": self._uses}, indent=1))


def boot_id() -> str:
    """What differs after a restart of the machine; "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
