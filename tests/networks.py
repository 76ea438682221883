"""A network of a command's own: its loopback interface alone, on which nobody else listens or calls.

Run as a program, it enters such a network and becomes the command that its arguments name.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SET_FLAGS, _UP_AND_RUNNING = 0x8914, 0x1 | 0x40


def in_a_network_of_its_own(*command: str | Path) -> list[str]:
    """The command line that runs `command` there."""
    return [sys.executable, str(Path(__file__)), *map(str, command)]


def may_make_networks() -> bool:
    """Whether this process may: root as a rule, others where user namespaces are allowed."""
    if sys.platform != "linux":
        return False
    tried = subprocess.run(in_a_network_of_its_own("true"), capture_output=True, timeout=30)
    return tried.returncode == 0


def _enter() -> None:
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _unshare(_NEW_NET)
    else:
        _unshare(_NEW_USER | _NEW_NET)  # in which this process may make networks, and is who it was
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket() as device:  # the loopback interface is down at first
        fcntl.ioctl(device, _SET_FLAGS, struct.pack("16sh", b"lo", _UP_AND_RUNNING))


def _unshare(flags: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    _enter()
    os.execvp(sys.argv[1], sys.argv[1:])
