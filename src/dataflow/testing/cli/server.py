"""`dataflow-tdd server`: start, look at, stop and address the embedded server by hand."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from dataflow.testing.errors import ServerError
from dataflow.testing.server.choice import embedded_options
from dataflow.testing.server.embedded import (
    EmbeddedOptions,
    ServerStatus,
    is_of_this_installation,
    prune_servers,
    running_servers,
    server_dsn,
    start_server,
    stop_all,
    stop_server,
)
from dataflow.testing.server.protocol import user_text
from dataflow.testing.settings import Sources, resolve

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def register(subparsers: Subparsers) -> None:
    description = "The embedded PostgreSQL server. Test runs start it by themselves; this is for everything else."
    group = subparsers.add_parser("server", help="the embedded PostgreSQL server", description=description)
    commands = group.add_subparsers(title="commands", required=True, metavar="command")
    start = _add(commands, "start", "start it, and let it run until it is stopped by hand")
    start.set_defaults(run=_start)
    status = commands.add_parser("status", help="show the servers that run, and who uses them")
    status.set_defaults(run=_status)
    stop = _add(commands, "stop", "stop it, unless somebody uses it")
    stop.add_argument("--force", action="store_true", help="stop it even if somebody uses it")
    stop.add_argument("--all", action="store_true", help="stop all that `status` shows")
    stop.set_defaults(run=_stop)
    url = _add(commands, "url", "print the address of its lasting database, and nothing else")
    url.add_argument("--admin", action="store_true", help="as the superuser, over the UNIX socket")
    url.set_defaults(run=_url)
    text = "remove the files of servers that do not run and that test runs of this installation do not use"
    prune = commands.add_parser("prune", help=text, description=text)
    prune.set_defaults(run=_prune)


def _add(commands: Subparsers, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument(
        "--port",
        type=_port,
        metavar="N",
        help="a server of its own on this port of the loopback interface, entered with a password "
        "(without it: the one that test runs share, on a UNIX socket)",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: it must be a number from 1 to 65535")
    return int(text)


def _options() -> EmbeddedOptions:
    return embedded_options(resolve(Sources.of_process()))


def _start(arguments: argparse.Namespace) -> int:
    options = _options()
    print(describe(start_server(options, arguments.port), time.time()))
    if arguments.port is not None:
        dsn = server_dsn(options, arguments.port)
        print(f"  address   {dsn.url() if dsn else 'unknown: it has stopped'}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    options = _options()
    now = time.time()
    lines = [describe(status, now, other=_is_other(status, options)) for status in running_servers(options)]
    print("\n".join(lines) or "no embedded server runs")
    return 0


def _is_other(status: ServerStatus, options: EmbeddedOptions) -> bool:
    try:
        return not is_of_this_installation(status, options)
    except ServerError:
        return True  # there are no programs in this environment


def _stop(arguments: argparse.Namespace) -> int:
    options = _options()
    if arguments.all:
        count = stop_all(options, force=arguments.force)
        print(f"{count} stopped" if count else "no embedded server ran")
        return 0
    name = _name(arguments.port)
    stopped = stop_server(options, arguments.port, force=arguments.force)
    print(f"{name} is stopped" if stopped else f"{name} did not run")
    if not stopped and (others := len(running_servers(options))):
        print(f"{others} of other programs or ports run: see dataflow-tdd server status, or stop --all")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    removed = prune_servers(_options())
    print("\n".join(f"removed {path}" for path in removed) or "nothing to remove")
    return 0


def _url(arguments: argparse.Namespace) -> int:
    dsn = server_dsn(_options(), arguments.port, admin=arguments.admin)
    if dsn is None:
        port = f" --port {arguments.port}" if arguments.port is not None else ""
        print(
            f"dataflow-tdd: {_name(arguments.port)} does not run\n  way out: dataflow-tdd server start{port}",
            file=sys.stderr,
        )
        return 1
    # The password in it is public and opens this server only.
    print(dsn.url())
    return 0


def _name(port: int | None) -> str:
    return "the shared embedded server" if port is None else f"the embedded server on port {port}"


def describe(status: ServerStatus, now: float, *, other: bool = False) -> str:
    """What a person wants to know of a running server.

    :param now: seconds since the epoch. :param other: it is not the one of this installation.
    """
    name = _name(status.tcp_port) + (" of another installation" if other else "")
    lines = [
        f"{name}: PostgreSQL {status.version} ({status.provider})",
        f"  socket    {status.host}, port {status.port}",
        f"  data      {status.data}",
        f"  keeper    process {status.pid}, up {_duration(now - status.started_at)}",
        f"  stops     {_stops(status, now)}",
    ]
    for user in status.users:
        lines.append(
            f"  used by   {user_text(user)}, for {_duration(now - user.since)}, database {user.database}"
        )
    return "\n".join(lines)


def _stops(status: ServerStatus, now: float) -> str:
    if status.pinned:
        return "when it is told to: dataflow-tdd server stop" + (
            f" --port {status.tcp_port}" if status.tcp_port is not None else ""
        )
    if status.stops_at is None:
        return "some time after its last user"
    return f"in {_duration(max(0.0, status.stops_at - now))}, if nobody uses it until then"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
