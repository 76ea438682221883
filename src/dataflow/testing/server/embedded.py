"""The embedded server for the rest of the project; the modules behind it are this room's own affair."""

from __future__ import annotations

from dataflow.testing.server.lease import EmbeddedLease, EmbeddedOptions, lease_database
from dataflow.testing.server.manage import (
    running_servers,
    server_dsn,
    server_status,
    start_server,
    stop_server,
)
from dataflow.testing.server.protocol import ServerStatus, User

__all__ = [
    "EmbeddedLease",
    "EmbeddedOptions",
    "ServerStatus",
    "User",
    "lease_database",
    "running_servers",
    "server_dsn",
    "server_status",
    "start_server",
    "stop_server",
]
