"""Is the URL of the test database right? Read and judged without connecting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from dataflow.testing.diagnosis.hiding import hidden
from dataflow.testing.diagnosis.model import Check, Detail, Diagnosis, Status, failure, info, ok
from dataflow.testing.diagnosis.setup import read_settings
from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import NotATestDatabase, SettingsError
from dataflow.testing.masking import MASK
from dataflow.testing.runtime import runtime
from dataflow.testing.server.external import GUIDE_DSN, check_test_database
from dataflow.testing.settings import given

TITLE = "Connection string"
DEFAULT_ORIGIN = "the default address, since TEST_DATABASE_URL is not set"
_OPTION = "TEST_DATABASE_URL, --tdd-database-url"
_EXAMPLE = "postgresql://user:password@host:5432/app_test"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# Parameters that only libpq knows: they would be sent to the server as settings, and it would refuse them.
_LIBPQ_ONLY = frozenset(
    [
        "connect_timeout",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "sslpassword",
        "sslnegotiation",
        "channel_binding",
        "gssencmode",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "require_auth",
        "service",
        "load_balance_hosts",
        "fallback_application_name",
        "hostaddr",
        "tcp_user_timeout",
    ]
)


@dataclass(frozen=True)
class ConnectionString(Diagnosis):
    """The parts of the URL under the names of `urllib.parse`; all None when it cannot be read.

    :param has_password: the password itself is not kept, not even its length.
    :param path: the database with a ``/`` in front of it.
    :param parameters: what stands behind the ``?``; secrets among it are masked.
    :param looks_like_tests: whether tests are let into this database.
    :param origin: where the URL comes from.
    """

    scheme: str | None = None
    username: str | None = None
    has_password: bool = False
    hostname: str | None = None
    port: int | None = None
    path: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    looks_like_tests: bool = False
    origin: str = ""

    @property
    def database(self) -> str | None:
        return self.path[1:] if self.path else None


def verify_connection_string(url: str | None = None) -> ConnectionString:
    """The parts of a database URL, and what is wrong with it. Nothing is connected to.

    :param url: None for the one that is set, or the default one.
    """
    current = runtime()
    sources = current.sources
    read = read_settings(current)
    allowed = frozenset[str]() if isinstance(read, SettingsError) else read.allow_database
    if url is not None:
        return describe_url(url, "argument", allowed)
    text, origin = given("database_url", sources)
    if text is None:
        return describe_url(GUIDE_DSN.url(), DEFAULT_ORIGIN, allowed)
    return describe_url(text, origin, allowed)


def unreadable_url(origin: str, error: ValueError) -> Check:
    return Check(
        "URL",
        Status.FAILED,
        f"{origin}: it cannot be read: {error}",
        f"write it as {_EXAMPLE}; percent-encode special characters of user and password "
        "(urllib.parse.quote(text, safe=''))",
        _OPTION,
    )


def describe_url(url: str, origin: str, allowed: frozenset[str]) -> ConnectionString:
    """The diagnosis of a URL. Pure."""
    try:
        dsn = Dsn.parse(url)
    except ValueError as error:
        return ConnectionString(TITLE, (unreadable_url(origin, error),), origin=origin)
    scheme = urlsplit(url.strip()).scheme
    guard = _guard(dsn, allowed)
    parameters = tuple((name, _shown_parameter(name, value)) for name, value in dsn.parameters)
    return ConnectionString(
        TITLE,
        (_parts(dsn, scheme, origin), guard, *_violations(dsn)),
        scheme=scheme,
        username=dsn.user,
        has_password=dsn.password is not None,
        hostname=dsn.host,
        port=dsn.port,
        path=f"/{dsn.database or ''}",
        parameters=parameters,
        looks_like_tests=guard.status is Status.OK,
        origin=origin,
    )


def _parts(dsn: Dsn, scheme: str, origin: str) -> Check:
    details: dict[str, Detail] = {
        "scheme": scheme,
        "user": dsn.user or "not given",
        "password": MASK if dsn.password is not None else "not given",
        "host": dsn.host,
        "port": dsn.port,
        "database": dsn.database or "not given",
        "parameters": tuple(f"{name}={_shown_parameter(name, value)}" for name, value in dsn.parameters),
    }
    return Check("URL", Status.OK, f"{hidden(str(dsn))} ({origin})", details=details)


def _guard(dsn: Dsn, allowed: frozenset[str]) -> Check:
    try:
        check_test_database(dsn, allowed)
    except NotATestDatabase as error:
        return failure("test database", error)
    if dsn.database in allowed:
        return ok("test database", f"{dsn.database!r} is allowed by name (allow_database)")
    return ok("test database", f"the name {dsn.database!r} says that it is for tests")


def _violations(dsn: Dsn) -> Iterator[Check]:
    if dsn.user is None:
        yield info("user", "not given: the name of the operating system's user is taken")
    names = dict(dsn.parameters)
    ssl = names.get("sslmode")
    if ssl is not None and ssl not in _SSL_MODES:
        yield _failed("sslmode", f"{ssl!r} is not known", f"use one of {', '.join(_SSL_MODES)}")
    for name in sorted(_LIBPQ_ONLY.intersection(names)):
        yield _failed(
            f"parameter {name}",
            "asyncpg does not know it and would send it to the server, which refuses it",
            f"take {name} out of the URL",
        )


def _failed(name: str, found: str, remedy: str) -> Check:
    return Check(name, Status.FAILED, found, remedy, _OPTION)


def _shown_parameter(name: str, value: str) -> str:
    return hidden(f"{name}={value}").removeprefix(f"{name}=")
