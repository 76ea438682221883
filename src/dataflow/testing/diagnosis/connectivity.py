"""Does the server answer? One connection, one question, and the time it took."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from dataflow.testing.diagnosis.address import unreadable_url
from dataflow.testing.diagnosis.borrowing import server_of_tests
from dataflow.testing.diagnosis.hiding import hidden
from dataflow.testing.diagnosis.model import Check, Detail, Diagnosis, Status, failure
from dataflow.testing.diagnosis.setup import invalid_settings, read_settings
from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SettingsError
from dataflow.testing.runtime import runtime

TITLE = "Database connectivity"
NAME = "connection"
# Seconds to connect when the settings that say so are invalid.
_FALLBACK_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Connectivity(Diagnosis):
    """:param server: what was connected to, without its password.
    :param server_version: such as ``18.6``; None when there was no answer.
    :param duration_ms: from the first attempt to connect to the answer, or to the failure.
    :param attempts: servers that were tried before and could not be used.
    """

    server: str | None = None
    server_version: str | None = None
    duration_ms: float | None = None
    attempts: tuple[str, ...] = ()


async def check_database_connectivity(url: str | None = None) -> Connectivity:
    """Connect, ask for the version, close. A server that does not answer is a failed check, not an exception.

    The wait is bounded by the setting `pool_timeout` (seconds).

    :param url: the server to try, and no other; None for the one that tests use, or would use: an embedded
        server that has to be started for this is stopped again.
    """
    if url is not None:
        return await _at_url(url)
    started = perf_counter()
    try:
        async with server_of_tests() as server:
            return await _at(server.dsn, server.description, server.attempts)
    except SettingsError as error:
        return Connectivity(TITLE, (invalid_settings(error),))
    except Exception as error:
        return _failed(error, None, perf_counter() - started)


async def _at_url(url: str) -> Connectivity:
    try:
        dsn = Dsn.parse(url)
    except ValueError as error:
        return Connectivity(TITLE, (unreadable_url("argument", error),))
    return await _at(dsn, hidden(str(dsn)), ())


async def _at(dsn: Dsn, server: str, attempts: tuple[str, ...]) -> Connectivity:
    started = perf_counter()
    try:
        version = await _ask_version(dsn, _timeout_s())
    except Exception as error:
        return _failed(error, server, perf_counter() - started, attempts, dsn.password)
    return connected(server, version, perf_counter() - started, attempts)


async def _ask_version(dsn: Dsn, timeout_s: float) -> str:
    from dataflow.testing.isolation.connecting import connect

    connection = await connect(dsn, timeout=timeout_s)
    try:
        return str(await connection.fetchval("SELECT current_setting('server_version')", timeout=timeout_s))
    finally:
        await connection.close(timeout=_CLOSE_TIMEOUT_S)


def connected(server: str, version: str, duration_s: float, attempts: tuple[str, ...]) -> Connectivity:
    """The diagnosis of a server that answered. Pure."""
    ms = round(duration_s * 1e3, 1)
    details: dict[str, Detail] = {"server_version": version, "duration_ms": ms, "not_used": attempts}
    check = Check(NAME, Status.OK, f"answered: {server}", details=details)
    return Connectivity(TITLE, (check,), server, version, ms, attempts)


def _failed(
    error: Exception,
    server: str | None,
    duration_s: float,
    attempts: tuple[str, ...] = (),
    password: str | None = None,
) -> Connectivity:
    ms = round(duration_s * 1e3, 1)
    details: dict[str, Detail] = {"tried": server or "the server that tests would use", "duration_ms": ms}
    check = failure(NAME, error, details | {"not_used": attempts}, password)
    return Connectivity(TITLE, (check,), server, None, ms, attempts)


def _timeout_s() -> float:
    read = read_settings(runtime())
    return _FALLBACK_TIMEOUT_S if isinstance(read, SettingsError) else read.pool_timeout
