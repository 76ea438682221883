"""A database address as a value: parsed once, shown without its password. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from dataflow.testing.masking import MASK, is_secret_name, mask

DEFAULT_PORT = 5432
_SCHEMES = ("postgresql", "postgres")


class SecretUrl(str):
    """A URL with its password, for drivers. Its `repr` has none: pytest shows that of each local variable."""

    def __repr__(self) -> str:
        return repr(mask(self))


@dataclass(frozen=True)
class Dsn:
    """Where a database is and as whom to enter it. Printing it never shows the password.

    :param host: a host name, an address, or the directory of a UNIX socket (begins with ``/``).
    :param parameters: further connection parameters of the URL, in its order.
    """

    host: str
    port: int = DEFAULT_PORT
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a ``postgresql://`` URL, also in SQLAlchemy's form ``postgresql+driver://``.

        :raises ValueError: it is no such URL; the message says why and never repeats the URL.
        """
        if _is_misread(url):
            raise ValueError(
                "an @ stands behind the first / or ? or #; write %40 for an @, %2F for a /, %3F for a ?, "
                "%23 for a # of its parts"
            )
        try:
            parts = urlsplit(url.strip())
            port = parts.port
            hostname = parts.hostname
        except ValueError:
            raise ValueError(
                "host or port cannot be read; percent-encode special characters of user and password"
            ) from None
        if parts.scheme.split("+")[0] not in _SCHEMES:
            raise ValueError(f"it must begin with postgresql://, not {parts.scheme or 'no scheme'!r}")
        if "," in parts.netloc.rpartition("@")[2]:
            raise ValueError("it names several hosts; give the one that tests should use")
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        host = parameters.pop("host", None) or (unquote(hostname) if hostname else None)
        given_port = parameters.pop("port", None)
        return cls(
            host=host or "localhost",
            port=_port(port if given_port is None else given_port),
            user=parameters.pop("user", None) or _unquoted(parts.username),
            password=parameters.pop("password", None) or _unquoted(parts.password),
            database=_database(parts.path, parameters),
            parameters=tuple(parameters.items()),
        )

    @property
    def on_unix_socket(self) -> bool:
        return self.host.startswith("/")

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        if self.on_unix_socket:
            return f"{self.host}/.s.PGSQL.{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, *, scheme: str = "postgresql") -> str:
        """The URL with its password, for drivers. For people there is ``str()``."""
        return self._format(scheme, self.password)

    def with_database(self, database: str) -> Self:
        return replace(self, database=database)

    def asyncpg_arguments(self) -> dict[str, Any]:
        """Keyword arguments for ``asyncpg.connect``; unlike a URL they need no second parser."""
        settings = {k: v for k, v in self.parameters if k not in _ASYNCPG_PARAMETERS}
        arguments: dict[str, Any] = {k: v for k, v in self.parameters if k in _ASYNCPG_PARAMETERS}
        arguments |= {"host": self.host, "port": self.port, "user": self.user, "database": self.database}
        if self.password is not None:
            arguments["password"] = self.password
        ssl = arguments.pop("sslmode", None)
        if ssl is not None or self.on_unix_socket:
            arguments["ssl"] = False if self.on_unix_socket else ssl
        # Said here, so that the environment (PGTARGETSESSIONATTRS …) does not say it.
        arguments.setdefault("target_session_attrs", "any")
        if self.on_unix_socket:
            arguments["direct_tls"] = False
        settings.setdefault("application_name", "dataflow-tdd")
        return arguments | {"server_settings": settings}

    def __str__(self) -> str:
        return replace(self, parameters=tuple(map(_shown_parameter, self.parameters)))._format(
            "postgresql", MASK if self.password is not None else None
        )

    def _format(self, scheme: str, password: str | None) -> str:
        user = quote(self.user, safe="") if self.user else ""
        if password is not None:
            user += ":" + (password if password == MASK else quote(password, safe=""))
        parameters = list(self.parameters)
        netloc = f"{user}@" if user else ""
        if self.on_unix_socket:
            parameters = [("host", self.host), ("port", str(self.port)), *parameters]
        else:
            netloc += f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        query = "?" + urlencode(parameters, safe="/*") if parameters else ""
        return f"{scheme}://{netloc}/{quote(self.database or '', safe='')}{query}"


# Parameters of a URL that asyncpg takes as arguments of its own; the others are settings of the session.
_ASYNCPG_PARAMETERS = frozenset({"sslmode", "passfile", "target_session_attrs", "krbsrvname", "gsslib"})


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None


def _is_misread(url: str) -> bool:
    """Whether reading `url` would take a part of its password for something else, which messages show.

    In ``postgresql://user:1/2@host/name`` the slash ends the host: 1 becomes the port, and ``2@host/name`` the
    database.
    """
    return "@" in re.sub(r"^[^/?#]*(//)?[^/?#]*", "", url.strip(), count=1)


def _database(path: str, parameters: dict[str, str]) -> str | None:
    """Taken out of the parameters under both names: as a setting of the session it would win over the path."""
    named = [parameters.pop(name, "") for name in ("dbname", "database")]
    return next(filter(None, named), None) or unquote(path[1:]) or None


def _port(given: str | int | None) -> int:
    if given is None:
        return DEFAULT_PORT
    if not (str(given).isascii() and str(given).isdecimal()) or not 0 < int(given) < 65536:
        raise ValueError("its port is not a number from 1 to 65535")
    return int(given)


def _shown_parameter(parameter: tuple[str, str]) -> tuple[str, str]:
    name, value = parameter
    return (name, MASK) if is_secret_name(name) else (name, mask(value))
