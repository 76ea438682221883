"""Opening a connection, and saying in words why it could not be opened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

import asyncpg

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import MissingDatabase, ServerUnreachable, SettingsError, TDDError, WrongPassword
from dataflow.testing.isolation.physical import PhysicalConnection
from dataflow.testing.isolation.relay import Parked, RelayLoop
from dataflow.testing.masking import mask

# A server that restarts refuses connections for a moment; a test run may wait that long.
_RETRY_EVERY_S = 0.02
_RETRIED = (
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    ConnectionError,
    FileNotFoundError,
)

log = logging.getLogger("dataflow.testing")


async def connect(
    dsn: Dsn,
    *,
    timeout: float,
    command_timeout: float | None = None,
    patience: float = 0.0,
    worth_waiting: Callable[[], bool] = lambda: True,
    refused: Callable[[str], None] = lambda _why: None,
    parked: Parked | None = None,
) -> PhysicalConnection:
    """Open a connection.

    :param timeout: seconds for opening it; `command_timeout`: for each statement on it, unless told otherwise.
    :param patience: seconds to try again while the server is (re)starting, as long as it is `worth_waiting`.
    :param refused: is told why, each time it was tried in vain. :param parked: a session to go on with.
    :raises ServerError: one of its kinds, with the way out.
    """
    started = monotonic()
    while True:
        try:
            loop = RelayLoop(asyncio.get_running_loop(), parked)
            connection: PhysicalConnection = await asyncpg.connect(
                **dsn.asyncpg_arguments() | ({"ssl": False} if parked is not None else {}),
                timeout=timeout,
                command_timeout=command_timeout,
                connection_class=PhysicalConnection,
                loop=cast("Any", loop),  # all that asyncpg uses of it is there
            )
            connection._loop = asyncio.get_running_loop()
            connection.relay = loop.relay
            connection.arguments = dsn.asyncpg_arguments()
            log.debug("connected to %s", dsn)
            return connection
        except _RETRIED as error:
            if monotonic() - started >= patience or not worth_waiting():
                raise explain(error, dsn) from None
            refused(mask(str(error), dsn.password) or type(error).__name__)
            log.debug("trying again to connect to %s: %s", dsn, mask(str(error), dsn.password))
            await asyncio.sleep(_RETRY_EVERY_S)
        except Exception as error:  # whatever it is: the frames of the driver show the password
            raise explain(error, dsn, timeout) from None


async def try_login(dsn: Dsn, timeout: float) -> None:
    """:param timeout: seconds. :raises ServerError: it cannot be entered."""
    connection = await connect(dsn, timeout=timeout)
    await connection.close()


def read_address(url: str | None) -> Dsn | None:
    """The address that a caller gave as a URL, which is not shown.

    :raises SettingsError: it is no such URL.
    """
    try:
        return None if url is None else Dsn.parse(url)
    except ValueError as error:
        violation = f"connection_string: it must be a PostgreSQL URL: {error}"
    finally:
        url = None  # nobody shall see it in a traceback
    raise SettingsError((violation,))


def explain(error: Exception, dsn: Dsn, timeout: float | None = None) -> TDDError:
    """The error that says what happened at `dsn`, why, and what to do."""
    said = mask(str(error), dsn.password) or type(error).__name__
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return WrongPassword(
            f"{dsn.where} refused user {dsn.user!r}: {said}",
            cause="wrong user or password in the URL, or pg_hba.conf does not let this user in",
            remedy=f"correct the URL ({dsn}), or create the user: "
            f"CREATE USER {_quoted(dsn.user)} WITH PASSWORD '...';",
            option="TEST_DATABASE_URL; leave it unset for the embedded server",
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return MissingDatabase(
            f"{dsn.where} has no database {dsn.database!r}",
            cause="it was never created there, or the URL names another one than you think",
            remedy=f"CREATE DATABASE {_quoted(dsn.database)} OWNER {_quoted(dsn.user)};",
            option="TEST_DATABASE_URL; leave it unset for the embedded server",
        )
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return ServerUnreachable(
            f"{dsn.where} has no connection left: {said}",
            cause="other programs or many workers hold them",
            remedy="use fewer workers or a smaller pool, or raise max_connections of the server",
            option="DATAFLOW_TDD_POOL_SIZE, --tdd-pool-size",
        )
    waited = f" within {timeout:g} s" if isinstance(error, TimeoutError) and timeout else ""
    return ServerUnreachable(
        f"no connection to {dsn}{waited}: {said}",
        cause="the server is not running, not reachable, or still starting",
        remedy=f"check it: pg_isready -h {dsn.host} -p {dsn.port}; or see `dataflow-tdd doctor`",
        option="TEST_DATABASE_URL; leave it unset for the embedded server",
    )


def _quoted(name: str | None) -> str:
    return '"' + (name or "").replace('"', '""') + '"'
