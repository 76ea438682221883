"""Every error that this library raises; no other module defines one.

    TDDError
    |-- SettingsError             a setting is invalid; all violations are listed
    |-- TDDModeDisabled           TDD mode was switched off explicitly
    |-- ServerError
    |   |-- BinariesNotFound      no PostgreSQL programs; every place searched is listed
    |   |-- ServerStartFailed     the embedded server did not come up
    |   |-- ServerInUse           refused to stop: somebody uses it
    |   |-- ServerUnreachable     nothing usable answered; each attempt is listed
    |   |-- WrongPassword         the server refused the credentials
    |   |-- MissingDatabase       the server has no such database
    |   |-- NotATestDatabase      the guard refused a database that may be a real one
    |   |-- CannotCreateDatabase  the role may not create databases
    |   `-- TemplateBusy          others build or use a template for too long
    |-- SchemaFailed              the schema, or its seed data, could not be built
    |-- MissingLibrary            what an optional part needs is not installed
    |-- PoolExhausted             no connection became free in time (also a TimeoutError)
    |-- ContextError
    |   |-- StaleContext          the test that owned this handle is over
    |   |-- NoTestConnection      the context was never given a connection
    |   |-- NoEventLoop           a fixture that needs an event loop was used by a test without one
    |   `-- WrongEventLoop        a connection was used in another event loop than its own
    |-- TransactionError
    |   |-- SavepointGone         a savepoint does not exist (any more)
    |   |-- TransactionEnded      the test ended the transaction that isolates it
    |   |-- CommitEscaped         something was committed while a test ran whose work is rolled back
    |   |-- DatabaseNotClean      an earlier test may have left rows behind
    |   |-- ConnectionLost        the connection of the test broke or was closed
    |   `-- StatementTimeout      a statement ran past the limit (also a TimeoutError)
    |-- ConnectionLeak            a test kept connections that it should have given back
    `-- ResourceError             a shared resource was not released, or its release failed

A message always has the same parts: what happened, the likely cause, the way out, the option to turn.
"""

from __future__ import annotations

__all__ = [
    "BinariesNotFound",
    "CannotCreateDatabase",
    "CommitEscaped",
    "ConnectionLeak",
    "ConnectionLost",
    "ContextError",
    "DatabaseNotClean",
    "MissingDatabase",
    "MissingLibrary",
    "NoEventLoop",
    "NoTestConnection",
    "NotATestDatabase",
    "PoolExhausted",
    "ResourceError",
    "SavepointGone",
    "SchemaFailed",
    "ServerError",
    "ServerInUse",
    "ServerStartFailed",
    "ServerUnreachable",
    "SettingsError",
    "StaleContext",
    "StatementTimeout",
    "TDDError",
    "TDDModeDisabled",
    "TemplateBusy",
    "TransactionEnded",
    "TransactionError",
    "WrongEventLoop",
    "WrongPassword",
]


class TDDError(Exception):
    """Base of all errors of this library.

    :param what: what happened, with the names and numbers at hand.
    :param cause: the likely cause.
    :param remedy: what to do about it.
    :param option: the option, marker or environment variable that changes it.
    """

    def __init__(
        self,
        what: str | None = None,
        *,
        cause: str | None = None,
        remedy: str | None = None,
        option: str | None = None,
    ) -> None:
        self.what = what if what is not None else _first_line(type(self))
        self.cause = cause
        self.remedy = remedy
        self.option = option
        super().__init__(self.what)

    def __str__(self) -> str:
        parts = (("likely cause", self.cause), ("way out", self.remedy), ("option", self.option))
        return "\n".join([self.what, *(f"  {name}: {text}" for name, text in parts if text)])


def _first_line(error: type[TDDError]) -> str:
    return (error.__doc__ or error.__name__).strip().splitlines()[0]


class SettingsError(TDDError):
    """Invalid settings."""

    def __init__(self, violations: tuple[str, ...]) -> None:
        self.violations = violations
        count = f"{len(violations)} invalid setting" + ("s" if len(violations) != 1 else "")
        super().__init__("\n".join([f"{count}:", *(f"  - {violation}" for violation in violations)]))


class TDDModeDisabled(TDDError):
    """TDD mode is switched off."""


class ServerError(TDDError):
    """A PostgreSQL server could not be used."""


class BinariesNotFound(ServerError):
    """No PostgreSQL programs were found."""


class ServerStartFailed(ServerError):
    """The embedded PostgreSQL server did not start."""


class ServerInUse(ServerError):
    """The embedded PostgreSQL server is in use."""


class ServerUnreachable(ServerError):
    """No PostgreSQL server could be reached."""


class WrongPassword(ServerError):
    """The server refused the user name or the password."""


class MissingDatabase(ServerError):
    """The database does not exist."""


class NotATestDatabase(ServerError):
    """The database does not look like a test database."""


class CannotCreateDatabase(ServerError):
    """The role may not create databases."""


class TemplateBusy(ServerError):
    """A template database is being built or used by others."""


class SchemaFailed(TDDError):
    """The schema could not be built."""


class MissingLibrary(TDDError):
    """A library that an optional part needs is not installed."""


class PoolExhausted(TDDError, TimeoutError):
    """No connection became free in time."""


class ContextError(TDDError):
    """A test context was used in a way that cannot work."""


class StaleContext(ContextError):
    """The test that owned this context is over."""


class NoTestConnection(ContextError):
    """This context holds no connection."""


class NoEventLoop(ContextError):
    """A fixture that needs an event loop was used by a test that has none."""


class WrongEventLoop(ContextError):
    """A connection was used in another event loop than the one it was opened in."""


class TransactionError(TDDError):
    """The transaction that isolates a test is not what it should be."""


class SavepointGone(TransactionError):
    """The savepoint does not exist."""


class TransactionEnded(TransactionError):
    """The test ended the transaction that isolates it."""


class CommitEscaped(TransactionError):
    """Something was committed while a test ran whose work is rolled back."""


class DatabaseNotClean(TransactionError):
    """The database may hold rows of an earlier test."""


class ConnectionLost(TransactionError):
    """The connection of the test is closed."""


class StatementTimeout(TransactionError, TimeoutError):
    """A statement ran past its time limit and was cancelled."""


class ConnectionLeak(TDDError):
    """A test kept connections that it should have given back."""


class ResourceError(TDDError):
    """A shared resource was not released properly."""
