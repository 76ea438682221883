"""The embedded server for the rest of the project; the modules behind it are this room's own affair."""

from __future__ import annotations

from dataflow.testing.server.lease import EmbeddedLease, EmbeddedOptions, lease_database
from dataflow.testing.server.manage import (
    is_of_this_installation,
    running_servers,
    server_dsn,
    server_status,
    start_server,
    stop_all,
    stop_server,
)
from dataflow.testing.server.protocol import ServerStatus, User
from dataflow.testing.server.pruning import prune_servers

__all__ = [
    "EmbeddedLease",
    "EmbeddedOptions",
    "ServerStatus",
    "User",
    "is_of_this_installation",
    "lease_database",
    "prune_servers",
    "running_servers",
    "server_dsn",
    "server_status",
    "start_server",
    "stop_all",
    "stop_server",
]
