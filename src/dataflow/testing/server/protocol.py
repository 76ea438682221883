"""What a run and a keeper say to each other: one JSON object per line, over a connection that *is* the lease.

A request is ``{"token", "do", …}``; a reply is ``{"ok": {…}}`` or ``{"error": {…}}``. Nothing here does I/O.

Named tuples rather than data classes: they are made in a fifth of the time, and every run pays for it.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, NoReturn

from dataflow.testing import errors

LONGEST_LINE = 65_536
# The role as which tests work, and the password of the guide. The password is public; it opens nothing
# but a server for tests on the loopback interface.
TEST_ROLE = "dataflow_test"
TEST_PASSWORD = "dataflow_test_password"  # noqa: S105
TEST_DATABASE = "dataflow_test"
ADMIN_ROLE = "postgres"
# The database of every cluster in which administration is done. Locks on templates are taken there: all runs
# must use the same one to see each other's.
ADMIN_DATABASE = "postgres"

Message = dict[str, Any]


class KeeperConfig(NamedTuple):
    """What a keeper is told when it is started.

    :param port: listen on this TCP port as well, with passwords; None for the UNIX socket only.
    :param idle_s: seconds without a lease after which it stops. :param pinned: never stop for being idle.
    """

    root: str
    key: str
    binaries: str
    provider: str
    port: int | None = None
    idle_s: float = 600.0
    pinned: bool = False
    start_timeout_s: float = 60.0

    def dump(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def load(cls, text: str) -> KeeperConfig:
        return cls(**json.loads(text))


class State(NamedTuple):
    """The keeper's file: where to reach it. Removed when it stops.

    :param address: ``("unix", path)`` or ``("tcp", host, port)`` of the control socket.
    :param sockets: the directory of postgres's socket, which lies elsewhere when the usual path is too long.
    """

    address: tuple[str | int, ...]
    token: str
    pid: int
    sockets: str

    def dump(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def load(cls, text: str) -> State:
        fields = json.loads(text)
        return cls(**fields | {"address": tuple(fields["address"])})


class User(NamedTuple):
    """One holder of a lease, or a client without one (`pid` 0). :param since: seconds since the epoch."""

    pid: int
    what: str
    cwd: str
    since: float
    database: str


class ServerStatus(NamedTuple):
    """A running server. Times are seconds since the epoch.

    :param host: directory of the UNIX socket, or the address when it listens on TCP only.
    :param port: of that socket. :param tcp_port: where it listens on the loopback interface, or None.
    :param idle_since: since when nobody holds a lease; None while somebody does.
    :param stops_at: when it will stop for being idle; None while it will not.
    """

    host: str
    port: int
    tcp_port: int | None
    version: str
    provider: str
    data: str
    pid: int
    started_at: float
    idle_since: float | None
    stops_at: float | None
    pinned: bool
    users: tuple[User, ...] = ()

    @classmethod
    def load(cls, fields: Message) -> ServerStatus:
        return cls(**fields | {"users": tuple(User(**user) for user in fields["users"])})

    def dump(self) -> Message:
        return self._asdict() | {"users": [user._asdict() for user in self.users]}


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def ok(**fields: Any) -> Message:
    return {"ok": fields}


def failure(error: errors.TDDError) -> Message:
    parts = {"what": error.what, "cause": error.cause, "remedy": error.remedy, "option": error.option}
    return {"error": parts | {"kind": type(error).__name__}}


def raise_failure(fields: Message) -> NoReturn:
    """Raise on this side what the other side would have raised; an unknown kind becomes a `ServerError`."""
    parts = dict(fields)
    kind = getattr(errors, parts.pop("kind", ""), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.ServerError)):
        kind = errors.ServerError
    raise kind(parts.pop("what", None), **parts)


def result(message: Message) -> Message:
    """The fields of a good reply.

    :raises ServerError: the reply is a failure; the class is that of the original error.
    """
    if "error" in message:
        raise_failure(message["error"])
    fields: Message = message["ok"]
    return fields


class Lines:
    """Turns the bytes of a stream into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes.

        :raises ValueError: what arrives is no message; the connection should be closed.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ValueError("a line is too long")
        messages = [json.loads(line) for line in lines if line]
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("a message is not an object")
        return messages


def users_text(users: tuple[User, ...]) -> str:
    """One line per user, for messages and for `server status`."""
    return "".join(f"\n    - {user_text(user)}, database {user.database}" for user in users)


def user_text(user: User) -> str:
    return f"process {user.pid} ({user.what}) in {user.cwd}" if user.pid else user.what
