"""A file lock that the kernel frees when its holder dies, however it dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from dataflow.testing.errors import ServerStartFailed

_POLL_S = 0.003


class FileLock:
    """An exclusive lock on a file. The file says who holds it, for messages only; it is never removed,
    because a lock on a removed file excludes nobody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def try_acquire(self, holder: str) -> bool:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        if not _try_lock(fd):
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder.encode(), 0) if sys.platform != "win32" else os.write(fd, holder.encode())
        self._fd = fd
        return True

    def acquire(self, holder: str, deadline: float, *, unless: Callable[[], bool] | None = None) -> bool:
        """Wait for the lock until `deadline` (monotonic, s); False when `unless` became true first.

        :raises ServerStartFailed: at the deadline, naming the holder.
        """
        began = time.monotonic()
        while not self.try_acquire(holder):
            if unless is not None and unless():
                return False
            if (now := time.monotonic()) >= deadline:
                raise ServerStartFailed(
                    f"waited {now - began:.1f} s for the lock {self.path}, held by {self.holder()}",
                    cause="another process is starting or stopping the same server and does not finish",
                    remedy="look at that process; end it if it hangs, and run again",
                )
            time.sleep(_POLL_S)
        return True

    def holder(self) -> str:
        try:
            return self.path.read_text() or "an unknown process"
        except OSError:
            return "an unknown process"

    def still_valid(self) -> bool:
        """False when the file was deleted or replaced: others would then lock another file."""
        if self._fd is None:
            return False
        try:
            there = self.path.stat()
        except OSError:
            return False
        ours = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        # The locked byte lies far behind the text: Windows would not let others read a locked range.
        os.lseek(fd, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(fd, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
