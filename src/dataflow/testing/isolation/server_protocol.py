"""What the isolation room needs of a server; the `server` room makes them."""

from __future__ import annotations

from typing import Protocol

from dataflow.testing.dsn import Dsn


class Server(Protocol):
    """A server as this room needs it; `alive` asks without waiting, `restarts` is as of then.

    `dsn`: where rollback tests connect to; it may have to be made first. `user_dsn`: the same role, in a database
    that is there. `admin_dsn`: a maintenance database, and the role that may do most there.
    """

    @property
    def dsn(self) -> Dsn: ...
    @property
    def user_dsn(self) -> Dsn: ...
    @property
    def admin_dsn(self) -> Dsn: ...
    @property
    def description(self) -> str: ...
    @property
    def started(self) -> bool | None: ...
    @property
    def attempts(self) -> tuple[str, ...]: ...
    @property
    def alive(self) -> bool: ...
    @property
    def restarts(self) -> int: ...
    def close(self) -> None: ...
