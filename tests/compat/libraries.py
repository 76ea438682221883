"""Which libraries' own tests are run, in which way. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Library:
    """
    :param members: what of its source distribution is unpacked: its tests, and what configures them.
    :param needs: what its tests import, besides itself.
    :param plugin: module in `plugins` that gives its tests connections of the sandbox.
    :param not_in_sandbox: beginnings of names of tests that would only wait there.
    :param tests: arguments of its pytest.
    :param extensions, schemas: what its tests expect in their database.
    :param environment: variables, in which ``{url}``, ``{host}``, ``{port}`` and ``{database}`` are replaced.
    """

    name: str
    version: str
    members: tuple[str, ...]
    needs: tuple[str, ...]
    tests: tuple[str, ...]
    plugin: str | None = None
    not_in_sandbox: tuple[str, ...] = ()
    loads: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    database: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def ways(self) -> tuple[str, ...]:
        """Plain connections to our server; the sandbox."""
        return ("server", "sandbox") if self.plugin else ("server",)


_LIBPQ = {"PGHOST": "{host}", "PGPORT": "{port}", "PGUSER": "postgres", "PGDATABASE": "{database}"}
_OF_ASYNCPG = (
    "cache_invalidation cancellation codecs copy cursor exceptions execute introspection listeners logging"
    " pool prepare record timeout transaction types utils"
)

LIBRARIES = (
    Library(
        name="asyncpg",
        version="0.32.0",
        members=("tests", "pyproject.toml"),
        needs=(),
        tests=tuple(f"tests/test_{name}.py" for name in _OF_ASYNCPG.split()),
        plugin="compat_asyncpg",
        # They replace asyncpg's protocol, or how it cancels: what they have sent goes on.
        not_in_sandbox=("tests/test_timeout.py::TestCloseTimeoutPendingCancel",),
        database="postgres",  # some of its tests call it by that name
        environment=_LIBPQ,
    ),
    Library(
        name="sqlalchemy",
        version="2.1.9",
        members=("test", "setup.cfg", "pyproject.toml", "lib/sqlalchemy/testing/plugin"),
        needs=("sqlalchemy[asyncio]",),
        tests=(
            "test/dialect/postgresql",
            "test/engine/test_transaction.py",
            "test/orm/test_transaction.py",
            "test/orm/test_session.py",
            "--backend-only",
        ),
        options=("--dburi", "postgresql+psycopg:///{database}", "--maxfail", "100000"),
        plugin="compat_sqlalchemy",
        extensions=("hstore", "citext"),
        schemas=("test_schema", "test_schema_2"),
        environment=_LIBPQ,
    ),
    Library(
        name="pgqueuer",
        version="1.6.0",
        members=("test", "pyproject.toml"),
        needs=(
            "pgqueuer[asyncpg,psycopg,fastapi,web]",
            "testcontainers",
            "pytest-asyncio",
            "pytest-mock",
            "pytest-xdist",
            "time-machine",
            "async-timeout",
            "httpx",
            "flask",
            "python-multipart",
        ),
        loads=("pytest_asyncio.plugin", "pytest_mock", "xdist.plugin"),
        options=("-n", "0", "--continue-on-collection-errors"),
        tests=("test",),
        environment={**_LIBPQ, "EXTERNAL_POSTGRES_DSN": "{url}"},
    ),
)
