"""What can be set: one table, from which pytest's options, environment variables and documentation follow.

Loaded in every pytest run, so it imports nothing that takes time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dataflow.testing.dsn import Dsn

TRUE_WORDS = frozenset({"true", "1", "yes", "on"})
FALSE_WORDS = frozenset({"false", "0", "no", "off"})
LEAK_ACTIONS = ("error", "warn", "ignore")
ESCAPE_ACTIONS = ("error", "warn")
SERVERS = ("auto", "embedded")


class Option(NamedTuple):
    """One thing that can be set. `parse` raises ValueError with words that finish "it must be …".

    `container` is the value of the container profile, if it has one of its own; `ci` likewise for continuous
    integration, which wins over the container's.
    """

    name: str
    environment: str
    help: str
    parse: Callable[[str], Any]
    default: Any = None
    container: Any = None
    ci: Any = None

    @property
    def several(self) -> bool:
        """It holds any number of values."""
        return isinstance(self.default, tuple | frozenset)

    @property
    def ini(self) -> str:
        return f"tdd_{self.name}"

    @property
    def flag(self) -> str:
        return "--" + self.ini.replace("_", "-")


_MOST = 10_000


def parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError("true, 1, yes or on; or false, 0, no or off")


def _whole(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        word = text.strip()
        if not (word.isascii() and word.isdecimal() and minimum <= int(word) <= _MOST):
            raise ValueError(f"a whole number from {minimum} to {_MOST}")
        return int(word)

    return parse


def _number(unit: str, *, zero: bool) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text.replace("_", "?"))  # Python would take 1_0 for 10
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise ValueError(f"a number of {unit}{' (0 switches it off)' if zero else ', more than 0'}")
        return value

    return parse


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in words:
            raise ValueError("one of " + ", ".join(words))
        return text.strip().lower()

    return parse


def _dsn(text: str) -> Dsn:
    from dataflow.testing.dsn import Dsn

    try:
        return Dsn.parse(text)
    except ValueError as error:
        raise ValueError(
            f"a PostgreSQL URL such as postgresql://user:password@host:5432/name_test: {error}"
        ) from None


def _names(text: str) -> frozenset[str]:
    return frozenset(filter(None, (name.strip() for name in text.split(","))))


def _files(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in re.split(r"[,\n]", text))))


def _path(text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~somebody, who is not there
        path = Path(text)
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
        "server",
        "DATAFLOW_TDD_SERVER",
        "auto: TEST_DATABASE_URL, else the default address if it answers, else embedded; or embedded: always",
        _one_of(SERVERS),
        default="auto",
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
        "most connections of one process beside the pool (clean_connection, fast_connection_pool)",
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
        _one_of(LEAK_ACTIONS),
        default="warn",
    ),
    Option(
        "escapes",
        "DATAFLOW_TDD_ESCAPES",
        "what it does when something was committed while a test ran whose work is rolled back: error or warn",
        _one_of(ESCAPE_ACTIONS),
        default="error",
    ),
    Option(
        "slow",
        "DATAFLOW_TDD_SLOW",
        "diagnose a test whose database work takes more ms than this, or a phase more than its share; 0: none",
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
    Option(
        "schema_sql",
        "DATAFLOW_TDD_SCHEMA_SQL",
        "SQL files and folders (a.sql,seeds) that make the tests' tables and seed rows; from pytest's rootdir",
        _files,
        default=(),
    ),
    Option(
        "schema_function",
        "DATAFLOW_TDD_SCHEMA_FUNCTION",
        "package.module:function that makes them; it gets a connection, or the URL if its parameter is named url",
        str,
    ),
    Option(
        "schema_command",
        "DATAFLOW_TDD_SCHEMA_COMMAND",
        "command that makes them (a migration tool), with the URL in DATABASE_URL; runs in pytest's rootdir",
        str,
    ),
    Option(
        "schema_alembic",
        "DATAFLOW_TDD_SCHEMA_ALEMBIC",
        "alembic.ini, or pyproject.toml with [tool.alembic], whose migrations make them; from pytest's rootdir",
        str,
    ),
    Option(
        "schema_files",
        "DATAFLOW_TDD_SCHEMA_FILES",
        "files and folders (migrations,seeds.csv) besides, whose change makes the schema stale",
        _files,
        default=(),
    ),
    Option(
        "schema_timeout",
        "DATAFLOW_TDD_SCHEMA_TIMEOUT",
        "seconds that making the schema may take, and the wait for another process that makes it",
        _number("seconds", zero=False),
        default=120.0,
    ),
    Option(
        "database_env",
        "DATAFLOW_TDD_DATABASE_ENV",
        "environment variables (DATABASE_URL) that hold the URL of tdd_database during its test",
        _files,
        default=(),
    ),
    Option(
        "spares",
        "DATAFLOW_TDD_SPARES",
        "copies of the template that one process keeps ready for tests with a database",
        _whole(0),
        default=2,
        container=1,
        ci=1,
    ),
    Option(
        "explain_reset",
        "DATAFLOW_TDD_EXPLAIN_RESET",
        "true: tell for each test with a database what it wrote and how that was undone",
        parse_bool,
        default=False,
    ),
)
