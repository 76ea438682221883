"""The client's end of the control socket. It imports little: a warm server needs nothing else of a run."""

from __future__ import annotations

import socket
from pathlib import Path

from dataflow.testing.server import protocol
from dataflow.testing.server.files import remove_tree
from dataflow.testing.server.layout import Instance
from dataflow.testing.server.protocol import Message, State


class KeeperGone(Exception):
    """The keeper closed the connection instead of answering: it is stopping, or was killed."""


class Link:
    """A connection to a keeper."""

    def __init__(self, connection: socket.socket, token: str) -> None:
        self.connection = connection
        self.token = token
        self._lines = protocol.Lines()

    def ask(self, do: str, **fields: object) -> Message:
        """The fields of the reply.

        :raises KeeperGone: there was none.
        :raises TimeoutError: there was none in time.
        :raises ServerError: it was a refusal.
        """
        try:
            self.connection.sendall(protocol.encode({"token": self.token, "do": do, **fields}))
            while True:
                data = self.connection.recv(65_536)
                if not data:
                    raise KeeperGone
                for message in self._lines.feed(data):
                    return protocol.result(message)
        except (ConnectionError, ValueError) as error:
            raise KeeperGone from error

    def close(self) -> None:
        self.connection.close()


def open_link(instance: Instance, timeout_s: float) -> Link | None:
    """A link to the keeper of `instance`, or None when none listens."""
    state = read_state(instance)
    connection = connect(state, timeout_s) if state is not None else None
    return Link(connection, state.token) if state is not None and connection is not None else None


def read_state(instance: Instance) -> State | None:
    """What a running keeper wrote; None when there is none, or when it is not readable."""
    try:
        return State.load(instance.state.read_text())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def connect(state: State, timeout_s: float) -> socket.socket | None:
    """A connection to the keeper, or None when it does not listen (any more)."""
    kind, *rest = state.address
    if kind == "tcp":
        try:
            return socket.create_connection((str(rest[0]), int(rest[1])), timeout_s)
        except OSError:
            return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        connection.connect(str(rest[0]))
    except OSError:
        connection.close()
        return None
    return connection


def answers(instance: Instance) -> bool:
    link = open_link(instance, 1.0)
    if link is not None:
        link.close()
    return link is not None


def remove_traces(instance: Instance, state: State) -> None:
    """Remove a keeper's state file and control socket, and the directory made only for the socket."""
    instance.state.unlink(missing_ok=True)
    if state.address[0] == "unix":
        path = Path(str(state.address[1]))
        path.unlink(missing_ok=True)
        if path.parent != instance.control:
            remove_tree(path.parent)
