"""Which server tests use: the one that was named, else the guide's address if it answers, else embedded."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import BinariesNotFound, ServerError, ServerStartFailed, ServerUnreachable
from dataflow.testing.server.embedded import EmbeddedLease, EmbeddedOptions, lease_database
from dataflow.testing.server.external import GUIDE_DSN, answers, check_test_database
from dataflow.testing.server.protocol import ADMIN_DATABASE
from dataflow.testing.settings import Settings

TryLogin = Callable[[Dsn], Awaitable[None]]


class ExternalServer(NamedTuple):
    """A server that somebody else runs; we only connect to it."""

    dsn: Dsn
    description: str
    attempts: tuple[str, ...] = ()
    started: bool | None = None
    alive: bool = True
    restarts: int = 0

    @property
    def user_dsn(self) -> Dsn:
        return self.dsn

    @property
    def admin_dsn(self) -> Dsn:
        """There is no other role than that of the URL, and no other database that we were given."""
        return self.dsn

    def close(self) -> None:
        """Nothing to give back."""


class EmbeddedServer(NamedTuple):
    """The embedded server, with a database that belongs to this process until `close`."""

    lease: EmbeddedLease
    description: str
    attempts: tuple[str, ...] = ()

    @property
    def dsn(self) -> Dsn:
        return self.lease.dsn

    @property
    def user_dsn(self) -> Dsn:
        return self.dsn

    @property
    def admin_dsn(self) -> Dsn:
        return self.lease.admin_dsn.with_database(ADMIN_DATABASE)

    @property
    def started(self) -> bool | None:
        return self.lease.started

    @property
    def alive(self) -> bool:
        return self.lease.alive

    @property
    def restarts(self) -> int:
        return self.lease.restarts

    def close(self) -> None:
        self.lease.close()


async def choose(
    settings: Settings, dsn: Dsn | None, *, try_login: TryLogin, what: str
) -> ExternalServer | EmbeddedServer:
    """Choose and, if need be, start the server.

    :param dsn: an address given by the caller, which wins over the settings.
    :param try_login: opens and closes a connection, or raises a ServerError.
    :param what: names this process in the status of the embedded server.
    :raises ServerError: none can be used; every attempt is listed.
    """
    given = dsn if dsn is not None else settings.database_url
    if settings.server == "embedded" and dsn is None:
        return _embedded(settings, what, attempts=())
    if given is not None:
        origin = "connection_string" if dsn is not None else settings.origins.get("database_url", "")
        check_test_database(given, settings.allow_database)
        await try_login(given)
        return ExternalServer(given, f"external, {given} ({origin})")
    refusal = await _refusal_of_guide_address(try_login)
    if refusal is None:
        return ExternalServer(GUIDE_DSN, f"external, {GUIDE_DSN} (the default address)")
    return _embedded(settings, what, attempts=(f"{GUIDE_DSN.where} (the default address): {refusal}",))


def _embedded(settings: Settings, what: str, *, attempts: tuple[str, ...]) -> EmbeddedServer:
    try:
        lease = lease_database(embedded_options(settings), what=what)
    except (BinariesNotFound, ServerStartFailed) as error:
        raise _nothing_usable(attempts, error) from error
    return EmbeddedServer(lease, f"embedded PostgreSQL {lease.version} ({lease.provider})", attempts)


def embedded_options(settings: Settings) -> EmbeddedOptions:
    return EmbeddedOptions(
        cache_dir=settings.cache_dir, binaries=settings.postgres_bin, idle_s=settings.server_idle
    )


async def _refusal_of_guide_address(try_login: TryLogin) -> str | None:
    reason = answers(GUIDE_DSN)
    if reason is not None:
        return reason
    try:
        await try_login(GUIDE_DSN)
    except ServerError as error:
        return error.what
    return None


def _nothing_usable(attempts: tuple[str, ...], error: ServerError) -> ServerUnreachable:
    embedded = f"embedded: {error.what}".replace("\n", "\n  ")
    tried = "".join(f"\n    - {attempt}" for attempt in (*attempts, embedded))
    return ServerUnreachable(
        f"no PostgreSQL server can be used; tried:{tried}",
        cause=error.cause,
        remedy=error.remedy,
        option=error.option,
    )


def this_process() -> str:
    """A short command line, for the status of the embedded server."""
    name = Path(sys.argv[0] or sys.executable).name
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return f"{name} ({worker})" if worker else name
