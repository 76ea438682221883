"""TCP ports of the loopback interface: whether one is free, and if not, what sits there."""

from __future__ import annotations

import errno
import socket
import struct

from dataflow.testing.errors import ServerStartFailed

LOOPBACK = "127.0.0.1"
_LOOPBACKS = ((socket.AF_INET, LOOPBACK), (socket.AF_INET6, "::1"))
# Every PostgreSQL answers this with one letter, S or N, before anything else is said.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def loopback_addresses(port: int) -> tuple[str, ...]:
    """The loopback addresses of this machine, all of which have `port` free.

    :raises ServerStartFailed: the port is taken; what answers there is in the message.
    """
    free = []
    for family, address in _LOOPBACKS:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise _taken(address, port, error) from error
            continue  # this machine has no such address
        free.append(address)
    return tuple(free)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def what_answers(address: str, port: int, timeout_s: float = 1.0) -> str:
    """What listens there, for people. A server that says nothing in time is none of PostgreSQL's."""
    try:
        with socket.create_connection((address, port), timeout_s) as probe:
            probe.sendall(_SSL_REQUEST)
            answer = probe.recv(1)
    except OSError:
        answer = b""
    return "a PostgreSQL server" if answer in (b"S", b"N") else "a program that is not PostgreSQL"


def _taken(address: str, port: int, error: OSError) -> ServerStartFailed:
    if error.errno == errno.EACCES:
        return ServerStartFailed(
            f"port {port} of {address} may not be used by this user",
            cause="ports below 1024 are reserved for root",
            remedy="choose a higher port",
            option="--port",
        )
    return ServerStartFailed(
        f"port {port} of {address} is in use: {what_answers(address, port)} answers there",
        cause="another server for tests (perhaps in a container) listens on that port",
        remedy="stop it, use it by setting TEST_DATABASE_URL, or choose another port",
        option="--port",
    )
