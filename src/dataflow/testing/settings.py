"""Settings: one frozen object, resolved at once from command line, environment, ini files and a profile.

`OPTIONS` is the one table of what can be set; pytest's options, the environment variables and the
documentation follow from it. Nothing is read at import: `resolve` gets its sources as arguments.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SettingsError

TRUE_WORDS = frozenset({"true", "1", "yes", "on"})
FALSE_WORDS = frozenset({"false", "0", "no", "off", ""})
CI_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS")
LEAK_ACTIONS = ("error", "warn", "ignore")


@dataclass(frozen=True)
class Option:
    """One thing that can be set. `parse` raises ValueError with words that finish "it must be …".

    :param container: the value of the container profile, if it has one of its own.
    :param ci: likewise for continuous integration; it wins over the container's.
    """

    name: str
    environment: str
    help: str
    parse: Callable[[str], Any]
    default: Any = None
    container: Any = None
    ci: Any = None

    @property
    def ini(self) -> str:
        return f"tdd_{self.name}"

    @property
    def flag(self) -> str:
        return "--" + self.ini.replace("_", "-")


def parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError("true, 1, yes or on; or false, 0, no or off")


def _whole(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < minimum:
            raise ValueError(f"a whole number of at least {minimum}")
        return int(text)

    return parse


def _number(unit: str, *, zero: bool) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise ValueError(f"a number of {unit}{' (0 switches it off)' if zero else ', more than 0'}")
        return value

    return parse


def _leaks(text: str) -> str:
    if text.strip().lower() not in LEAK_ACTIONS:
        raise ValueError("one of " + ", ".join(LEAK_ACTIONS))
    return text.strip().lower()


def _dsn(text: str) -> Dsn:
    try:
        return Dsn.parse(text)
    except ValueError as error:
        raise ValueError(
            f"a PostgreSQL URL such as postgresql://user:password@host:5432/name_test: {error}"
        ) from None


def _names(text: str) -> frozenset[str]:
    return frozenset(filter(None, (name.strip() for name in text.split(","))))


def _path(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ValueError("an absolute path")
    return path


OPTIONS: tuple[Option, ...] = (
    Option(
        "mode",
        "DATAFLOW_TDD_MODE",
        "TDD mode: true, false, or unset (on as soon as a TDD fixture is used)",
        parse_bool,
    ),
    Option(
        "database_url",
        "TEST_DATABASE_URL",
        "URL of an existing test database, to use instead of the embedded server",
        _dsn,
    ),
    Option(
        "pool_size",
        "DATAFLOW_TDD_POOL_SIZE",
        "most connections that the tests of one process hold at a time",
        _whole(1),
        default=5,
        container=2,
        ci=3,
    ),
    Option(
        "pool_max_overflow",
        "DATAFLOW_TDD_POOL_MAX_OVERFLOW",
        "most connections of one process beside the pool (clean_connection)",
        _whole(0),
        default=3,
        container=1,
    ),
    Option(
        "pool_timeout",
        "DATAFLOW_TDD_POOL_TIMEOUT",
        "seconds to wait for a connection",
        _number("seconds", zero=False),
        default=10.0,
        container=5.0,
    ),
    Option(
        "timeout",
        "DATAFLOW_TDD_TIMEOUT",
        "seconds that one statement of a test may take",
        _number("seconds", zero=False),
        default=30.0,
        container=10.0,
        ci=15.0,
    ),
    Option(
        "max_connections",
        "DATAFLOW_TDD_MAX_CONNECTIONS",
        "most connections of one process in all (default: pool size + overflow)",
        _whole(1),
        ci=10,
    ),
    Option(
        "leaks",
        "DATAFLOW_TDD_LEAKS",
        "what a leaked connection does: error, warn or ignore",
        _leaks,
        default="warn",
    ),
    Option(
        "slow",
        "DATAFLOW_TDD_SLOW",
        "diagnose a test whose database work takes more ms than this; 0 switches it off",
        _number("ms", zero=True),
        default=100.0,
    ),
    Option(
        "memory_threshold",
        "DATAFLOW_TDD_MEMORY_THRESHOLD",
        "warn when a test grows the process by more MB than this; 0 switches it off",
        _number("MB", zero=True),
        default=0.0,
    ),
    Option(
        "allow_database",
        "DATAFLOW_TDD_ALLOW_DATABASE",
        "names (a,b) of databases to accept although they do not look like test databases",
        _names,
        default=frozenset(),
    ),
    Option(
        "server_idle",
        "DATAFLOW_TDD_SERVER_IDLE",
        "seconds that the embedded server stays up unused; 0: not at all",
        _number("seconds", zero=True),
        default=600.0,
        ci=0.0,
    ),
    Option(
        "cache_dir",
        "DATAFLOW_TDD_CACHE_DIR",
        "folder of the embedded server (default: the user's cache folder)",
        _path,
    ),
    Option(
        "postgres_bin",
        "DATAFLOW_TDD_POSTGRES_BIN",
        "folder with initdb and postgres, to use instead of the installed wheel",
        _path,
    ),
)


@dataclass(frozen=True)
class Settings:
    """All settings of a process. Times in seconds unless a name says otherwise.

    :param origins: for each setting, where its value comes from ("CI profile", "DATAFLOW_TDD_TIMEOUT", …).
    """

    mode: bool | None
    database_url: Dsn | None
    pool_size: int
    pool_max_overflow: int
    pool_timeout: float
    timeout: float
    max_connections: int
    leaks: str
    slow: float
    memory_threshold: float
    allow_database: frozenset[str]
    server_idle: float
    cache_dir: Path | None
    postgres_bin: Path | None
    profiles: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def pool_max_size(self) -> int:
        """The most connections that the pool opens: `pool_size` within `max_connections`."""
        return min(self.pool_size, self.max_connections)

    @property
    def max_beside_pool(self) -> int:
        """The most connections beside the pool, within `max_connections`."""
        return min(self.pool_max_overflow, self.max_connections - self.pool_max_size)

    def explain(self, name: str) -> str:
        """One setting with its origin: ``pool_size 3 (CI profile)``."""
        value = getattr(self, name)
        shown = ",".join(sorted(value)) if isinstance(value, frozenset) else value
        if name == "pool_size" and self.pool_max_size < self.pool_size:
            shown = f"{shown}, limited to {self.pool_max_size} by max_connections"
        return f"{name} {'unset' if shown in (None, '') else shown} ({self.origins.get(name, 'default')})"

    def __str__(self) -> str:
        return "\n".join(self.explain(option.name) for option in OPTIONS)


@dataclass(frozen=True)
class Sources:
    """Where settings may come from, best first. `None` or a missing key means: not given there."""

    command_line: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    ini: Mapping[str, str] = field(default_factory=dict)
    in_container: bool = False

    @classmethod
    def of_process(
        cls, command_line: Mapping[str, str] | None = None, ini: Mapping[str, str] | None = None
    ) -> Sources:
        """The sources of this process as they are now; command line and ini come from whoever parsed them."""
        return cls(command_line or {}, dict(os.environ), ini or {}, in_container=_in_container(os.environ))


def resolve(sources: Sources) -> Settings:
    """Merge the sources: command line, environment, ini, CI profile, container profile, default.

    :raises SettingsError: with every violation found.
    """
    profiles = _profiles(sources)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    violations: list[str] = []
    for option in OPTIONS:
        given, origin = _given(option, sources)
        if given is None:
            values[option.name], origins[option.name] = _from_profile(option, profiles)
            continue
        origins[option.name] = origin
        try:
            values[option.name] = option.parse(given)
        except ValueError as error:
            # A URL may hold a password, so a bad one is not repeated.
            shown = "" if option.name == "database_url" else f" {given!r}"
            violations.append(f"{origin}{shown}: it must be {error}")
    if violations:
        raise SettingsError(tuple(violations))
    if values["max_connections"] is None:
        values["max_connections"] = values["pool_size"] + values["pool_max_overflow"]
        origins["max_connections"] = "pool size + overflow"
    return Settings(**values, profiles=profiles, origins=origins)


def given_mode(sources: Sources) -> bool | None:
    """TDD mode as it is set right now, or None when nobody set it.

    :raises SettingsError: it is set to a word that is neither yes nor no.
    """
    option = OPTIONS[0]
    given, origin = _given(option, sources)
    if given is None:
        return None
    try:
        return parse_bool(given)
    except ValueError as error:
        raise SettingsError((f"{origin} {given!r}: it must be {error}",)) from None


def _given(option: Option, sources: Sources) -> tuple[str | None, str]:
    places = (
        (sources.command_line.get(option.name), option.flag),
        (sources.environment.get(option.environment), option.environment),
        (sources.ini.get(option.name), f"ini option {option.ini}"),
    )
    for value, origin in places:
        if value is not None and (value != "" or origin == option.flag):
            return value, origin
    return None, "default"


def _profiles(sources: Sources) -> tuple[str, ...]:
    in_ci = any(sources.environment.get(name, "").strip().lower() not in FALSE_WORDS for name in CI_VARIABLES)
    return ("CI",) * in_ci + ("container",) * sources.in_container


def _from_profile(option: Option, profiles: tuple[str, ...]) -> tuple[Any, str]:
    if "CI" in profiles and option.ci is not None:
        return option.ci, "CI profile"
    if "container" in profiles and option.container is not None:
        return option.container, "container profile"
    return option.default, "default"


def _in_container(environment: Mapping[str, str]) -> bool:
    return environment.get("CONTAINER", "").strip().lower() == "true" or Path("/.dockerenv").exists()
