"""Settings: one frozen object, resolved at once from command line, environment, ini files and a profile.

Nothing is read at import: `resolve` gets its sources as arguments. What can be set is in `options`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SettingsError
from dataflow.testing.options import FALSE_WORDS, OPTIONS, Option, parse_bool

DEFAULT = "default"
DERIVED = "pool size + overflow"
_BY_NAME = {option.name: option for option in OPTIONS}
_PREFIX = "DATAFLOW_TDD_"
CI_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS")


@dataclass(frozen=True)
class Settings:
    """All settings of a process. Times in seconds unless a name says otherwise.

    :param unknown: environment variables that look like settings, and are none.
    :param origins: for each setting, where its value comes from ("CI profile", "DATAFLOW_TDD_TIMEOUT", …).
    """

    mode: bool | None
    database_url: Dsn | None
    server: str
    pool_size: int
    pool_max_overflow: int
    pool_timeout: float
    timeout: float
    max_connections: int
    leaks: str
    escapes: str
    slow: float
    memory_threshold: float
    allow_database: frozenset[str]
    server_idle: float
    cache_dir: Path | None
    postgres_bin: Path | None
    schema_sql: tuple[str, ...]
    schema_function: str | None
    schema_command: str | None
    schema_alembic: str | None
    schema_files: tuple[str, ...]
    schema_timeout: float
    database_env: tuple[str, ...]
    spares: int
    explain_reset: bool
    profiles: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
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
        shown = ",".join(sorted(value)) if isinstance(value, frozenset | tuple) else value
        if name == "pool_size" and self.pool_max_size < self.pool_size:
            shown = f"{shown}, limited to {self.pool_max_size} by max_connections"
        return f"{name} {'unset' if shown in (None, '') else shown} ({self.origins.get(name, DEFAULT)})"

    def by_origin(self) -> tuple[str, ...]:
        """What is not a default, a line for each origin: ``CI profile: pool_size 3, timeout 15.0``."""
        lines: dict[str, list[str]] = {}
        for name, origin in self.origins.items():
            if origin not in (DEFAULT, DERIVED):
                lines.setdefault(origin, []).append(self.explain(name).removesuffix(f" ({origin})"))
        known = (f"{origin}: {', '.join(settings)}" for origin, settings in lines.items())
        return (*known, *(f"{name} is not known, and has no effect" for name in self.unknown))

    def __str__(self) -> str:
        return "\n".join(self.explain(option.name) for option in OPTIONS)


class Sources(NamedTuple):
    """Where settings may come from, best first. `None` or a missing key means: not given there."""

    command_line: Mapping[str, str] = MappingProxyType({})
    environment: Mapping[str, str] = MappingProxyType({})
    ini: Mapping[str, str] = MappingProxyType({})
    in_container: bool = False

    @classmethod
    def of_process(
        cls, command_line: Mapping[str, str] | None = None, ini: Mapping[str, str] | None = None
    ) -> Sources:
        """The sources of this process as they are now; command line and ini come from whoever parsed them."""
        return cls(command_line or {}, dict(os.environ), ini or {}, in_container=_in_container(os.environ))

    def __repr__(self) -> str:
        # There are passwords among the values, and `pytest --showlocals` prints what it finds.
        return f"<Sources, in_container={self.in_container}>"


def resolve(sources: Sources) -> Settings:
    """Merge the sources: command line, environment, ini, CI profile, container profile, default.

    :raises SettingsError: with every violation found.
    """
    profiles = _profiles(sources)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    violations: list[str] = []
    for option in OPTIONS:
        text, origin = given(option.name, sources)
        if text is None:
            values[option.name], origins[option.name] = _from_profile(option, profiles)
            continue
        origins[option.name] = origin
        try:
            values[option.name] = option.parse(text)
        except ValueError as error:
            # A URL may hold a password, so a bad one is not repeated.
            shown = "" if option.name == "database_url" else f" {text!r}"
            violations.append(f"{origin}{shown}: it must be {error}")
    if violations:
        raise SettingsError(tuple(violations))
    if values["max_connections"] is None:
        values["max_connections"] = values["pool_size"] + values["pool_max_overflow"]
        origins["max_connections"] = DERIVED
    return Settings(**values, profiles=profiles, unknown=_unknown(sources.environment), origins=origins)


def given_mode(sources: Sources) -> bool | None:
    """TDD mode as it is set right now, or None when nobody set it.

    :raises SettingsError: it is set to a word that is neither yes nor no.
    """
    text, _ = given("mode", sources)
    if text is None:
        return None
    try:
        return parse_bool(text)
    except ValueError:
        return resolve(sources).mode  # which raises, with all that is wrong


def given(name: str, sources: Sources) -> tuple[str | None, str]:
    """The text that one setting is given, unread, and where; None and "default" when nobody gives it."""
    option = _BY_NAME[name]
    places = (
        (sources.command_line.get(option.name), option.flag),
        (sources.environment.get(option.environment), option.environment),
        (sources.ini.get(option.name), f"ini option {option.ini}"),
    )
    for value, origin in places:
        if value:
            return value, origin
        if value == "" and origin == option.flag:
            break  # an empty --tdd-x= takes back what environment and ini file say
    return None, DEFAULT


def _unknown(environment: Mapping[str, str]) -> tuple[str, ...]:
    known = {option.environment for option in OPTIONS}
    return tuple(sorted(name for name in environment if name.startswith(_PREFIX) and name not in known))


def _profiles(sources: Sources) -> tuple[str, ...]:
    words = (sources.environment.get(name, "").strip().lower() for name in CI_VARIABLES)
    in_ci = any(word and word not in FALSE_WORDS for word in words)
    return ("CI",) * in_ci + ("container",) * sources.in_container


def _from_profile(option: Option, profiles: tuple[str, ...]) -> tuple[Any, str]:
    if "CI" in profiles and option.ci is not None:
        return option.ci, "CI profile"
    if "container" in profiles and option.container is not None:
        return option.container, "container profile"
    return option.default, DEFAULT


def _in_container(environment: Mapping[str, str]) -> bool:
    return environment.get("CONTAINER", "").strip().lower() == "true" or Path("/.dockerenv").exists()
