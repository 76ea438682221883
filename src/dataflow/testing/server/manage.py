"""Servers by hand: start one and keep it, look at those that run, stop one. What `dataflow-tdd server` does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError, ServerInUse
from dataflow.testing.server.cache import cache_root
from dataflow.testing.server.layout import Instance, Layout
from dataflow.testing.server.lease import EmbeddedOptions, converse, database_dsn, locate
from dataflow.testing.server.link import KeeperGone, Link, open_link, read_state
from dataflow.testing.server.locks import FileLock
from dataflow.testing.server.owner import server_owner
from dataflow.testing.server.protocol import (
    ADMIN_ROLE,
    TEST_DATABASE,
    TEST_PASSWORD,
    TEST_ROLE,
    Message,
    ServerStatus,
)

# A stop ends sessions, then the process, by force if need be; see `postgres.Postgres.stop`.
STOP_LIMIT_S = 30.0


def server_status(options: EmbeddedOptions, port: int | None = None) -> ServerStatus | None:
    """The server that these options mean, or None when it does not run. Starts nothing."""
    return _status_of(locate(options, port).instance)


def running_servers(options: EmbeddedOptions) -> tuple[ServerStatus, ...]:
    """All servers of the cache directory, whichever programs they use."""
    statuses = (_status_of(instance) for instance in _instances(options))
    return tuple(status for status in statuses if status is not None)


def is_of_this_installation(status: ServerStatus, options: EmbeddedOptions) -> bool:
    """Whether test runs of this Python environment use this server: another one may bring other programs.

    :raises ServerError: there are no programs here.
    """
    return status.data == str(locate(options, status.tcp_port).instance.data)


def _instances(options: EmbeddedOptions) -> tuple[Instance, ...]:
    layout = Layout(cache_root(options.cache_dir, server_owner()))
    directories = sorted(layout.servers.glob("*/")) if layout.servers.is_dir() else []
    return tuple(map(Instance, directories))


def start_server(options: EmbeddedOptions, port: int | None = None, pinned: bool = True) -> ServerStatus:
    """Start the server unless it runs.

    :param port: the loopback port of a server of its own, entered with the guide's password; None for the
        shared one on a UNIX socket.
    :param pinned: let it run until `stop_server`, used or not.
    :raises ServerStartFailed: it does not start; for a port in use, what answers there is in the message.
    """
    link, answer, _ = converse(locate(options, port), "pin", {"pinned": pinned}, pinned=pinned)
    link.close()
    return ServerStatus.load(answer)


def stop_server(options: EmbeddedOptions, port: int | None = None, force: bool = False) -> bool:
    """Stop the server and wait until it is gone; False when it did not run.

    :raises ServerInUse: somebody uses it, and `force` is not set; the users are in the message.
    """
    return _stop(locate(options, port).instance, force=force)


def stop_all(options: EmbeddedOptions, force: bool = False) -> int:
    """Stop all servers of the cache directory, whichever programs they use; returns how many ran.

    :raises ServerInUse: somebody uses one of them, and `force` is not set; the others are stopped.
    """
    stopped, refusals = 0, []
    for instance in _instances(options):
        try:
            stopped += _stop(instance, force=force)
        except ServerInUse as error:
            refusals.append(error)
    if refusals:
        what = "\n".join(error.what for error in refusals)
        raise ServerInUse(
            f"{stopped} stopped, {len(refusals)} not:\n{what}", remedy=refusals[0].remedy, option="--force"
        )
    return stopped


def _stop(instance: Instance, *, force: bool) -> bool:
    with _talking_to(instance) as link:
        if link is None:
            return False
        # A keeper that goes instead of answering was told to stop by somebody else.
        with suppress(KeeperGone):
            _ask(link, "stop", force=force)
    # The keeper keeps its lock as long as it lives; somebody may have started the next one already.
    with FileLock(instance.keeper_lock) as lock:
        deadline = time.monotonic() + STOP_LIMIT_S
        lock.acquire("whoever waits for its end", deadline, unless=lambda: _has_successor(instance, link))
    return True


def _has_successor(instance: Instance, stopped: Link) -> bool:
    """Whether another keeper than the stopped one serves; that one may still listen for an instant."""
    state = read_state(instance)
    return state is not None and state.token != stopped.token


def server_dsn(options: EmbeddedOptions, port: int | None = None, *, admin: bool = False) -> Dsn | None:
    """The address of a lasting database on a running server; None when it does not run.

    On a server with a port this is the guide's address. The superuser has no password and so no TCP: with
    `admin` it is always the UNIX socket.
    """
    with _talking_to(locate(options, port).instance) as link:
        if link is None:
            return None
        answer = _answer(link, "ensure")
    if answer is None:
        return None
    if port is not None and not admin:
        return Dsn("localhost", port, TEST_ROLE, TEST_PASSWORD, TEST_DATABASE)
    return database_dsn(answer, ADMIN_ROLE if admin else TEST_ROLE)


def _status_of(instance: Instance) -> ServerStatus | None:
    with _talking_to(instance) as link:
        answer = _answer(link, "status") if link else None
    return ServerStatus.load(answer) if answer is not None else None


def _answer(link: Link, do: str) -> Message | None:
    try:
        return _ask(link, do)
    except KeeperGone:
        return None


def _ask(link: Link, do: str, **fields: object) -> Message:
    try:
        return link.ask(do, **fields)
    except TimeoutError as error:
        raise ServerError("the keeper of the embedded server did not answer in time") from error


@contextmanager
def _talking_to(instance: Instance) -> Iterator[Link | None]:
    link = open_link(instance, STOP_LIMIT_S)
    try:
        yield link
    finally:
        if link is not None:
            link.close()
