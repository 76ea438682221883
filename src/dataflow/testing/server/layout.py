"""Names of files and directories. Pure: nothing here looks at the disk.

<cache>/binaries/<key>/      programs copied for a user that cannot reach the originals
<cache>/pristine/<key>/      a cluster just made, packed: what data directories are copied from
<cache>/servers/<key>/       one server: data/ and socket/ are postgres's, control/ is the keeper's
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import NamedTuple

# sun_path holds 108 bytes on Linux and 104 on macOS, with the final zero. One limit for both.
SOCKET_PATH_LIMIT = 103
SHARED_PORT = 5432


def server_key(binaries: Path, size: int, changed_ns: int) -> str:
    """The key of the programs in `binaries`: upgrading them in place must not reuse an older data directory.

    :param size: bytes of the `postgres` program; :param changed_ns: its modification time.
    """
    identity = f"{binaries}\0{size}\0{changed_ns}".encode()
    return f"pg-{zlib.crc32(identity):08x}"


class Instance(NamedTuple):
    """The files of one server."""

    directory: Path

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def sockets(self) -> Path:
        return self.directory / "socket"

    @property
    def control(self) -> Path:
        return self.directory / "control"

    @property
    def keeper_lock(self) -> Path:
        return self.control / "keeper.lock"

    @property
    def start_lock(self) -> Path:
        return self.control / "start.lock"

    @property
    def keeper_socket(self) -> Path:
        return self.control / "keeper.sock"

    @property
    def state(self) -> Path:
        return self.control / "keeper.json"

    @property
    def record(self) -> Path:
        return self.control / "databases.json"

    @property
    def keeper_log(self) -> Path:
        return self.control / "keeper.log"

    @property
    def postgres_log(self) -> Path:
        return self.control / "postgres.log"


class Layout(NamedTuple):
    """Where things are below one cache directory."""

    root: Path

    def binaries(self, key: str) -> Path:
        return self.root / "binaries" / key

    def pristine(self, key: str) -> Path:
        return self.root / "pristine" / key

    @property
    def servers(self) -> Path:
        return self.root / "servers"

    def instance(self, key: str, port: int | None = None) -> Instance:
        """The shared server (`port` None), or the one that listens on a TCP port of its own."""
        return Instance(self.servers / (key if port is None else f"{key}-port{port}"))


def socket_fits(directory: Path, port: int) -> bool:
    """Whether the kernel accepts the path of postgres's socket in `directory`."""
    return len(str(directory / f".s.PGSQL.{port}").encode()) <= SOCKET_PATH_LIMIT


def path_fits(path: Path) -> bool:
    return len(str(path).encode()) <= SOCKET_PATH_LIMIT
