"""Ports for servers of the tests, and ports at which nobody answers."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_LOWEST = 10_000
# pytest-randomly gives each test the same seed, in each worker: they would choose the same port.
_chance = random.SystemRandom()


def unused_port() -> int:
    """A free port that the kernel gives to nobody unasked: between this call and the start of a server on it,
    and while that server is down for a moment, no connection of another program takes it."""
    for _ in range(1000):
        port = _chance.choice(_not_given_unasked())
        if _is_free(port):
            return port
    raise AssertionError("no free port found")


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else can take meanwhile: bound, but never listened at."""
    held: list[socket.socket] = []
    try:
        yield _hold_one(held)
    finally:
        for one in held:
            one.close()


def _not_given_unasked() -> range:
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest_given = int(given.read_text().split()[0]) if given.exists() else 32768
    return range(_LOWEST, lowest_given) if lowest_given > _LOWEST + 1000 else range(_LOWEST, 65536)


def _is_free(port: int) -> bool:
    for family, address in _ADDRESSES:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
    return True


def _hold_one(held: list[socket.socket]) -> int:
    """A port of which all loopback addresses are bound, by sockets that are added to `held`."""
    port = unused_port()
    for family, address in _ADDRESSES:
        try:
            held.append(socket.socket(family, socket.SOCK_STREAM))
            held[-1].bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:  # somebody was faster
                return _hold_one(held)
    return port
