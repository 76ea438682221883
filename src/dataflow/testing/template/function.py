"""A schema from a function in Python, sync or async: an ORM's `create_all`, a migration tool's API, a factory."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed, TDDError
from dataflow.testing.masking import mask
from dataflow.testing.template import failure, inputs
from dataflow.testing.template.apart import run_apart
from dataflow.testing.template.imported import imported
from dataflow.testing.template.importing import file_of, find_function, innermost, on_path, source_of
from dataflow.testing.template.session import TimeLimit, connect, this_process

_TAKES_URL = ("url", "database_url")
# After its limit a function is cancelled, or its connection is cut off; it gets so long to end then.
_GRACE_S = 5.0


class PythonFunction:
    """A function that builds the schema, in a thread of its own; an async one in an event loop of its own.

    What it gets depends on the name of its first parameter: `url` or `database_url`: the database's URL as text;
    any other: a connection in autocommit, psycopg's for a function and asyncpg's for an async one.

    :param function: or where it is: ``package.module:name``.
    :param files: files, folders and patterns that it reads. A change of any makes the template stale, and so
        does one of the function's module, and of the project's modules that this imports, however many lie
        between; not one of an installed package, nor of what the function closes over.
    :param rootdir: where a named module is looked for if Python does not find it.
    """

    def __init__(
        self, function: Callable[..., object] | str, files: Sequence[Path] = (), rootdir: Path | None = None
    ) -> None:
        self._given = function
        self._files = tuple(path.expanduser().absolute() for path in files)
        self._rootdir = rootdir

    def fingerprint(self) -> str:
        """The function's name, the sources of its module and of the modules that it needs, and `files`.

        :raises SchemaFailed: there is no such function, no source, or no such file.
        """
        name = self.describe()
        parts = (name.encode(), source_of(self._function, name))
        files = (*self._modules, *inputs.inputs(self._files))
        return inputs.fingerprint("function", *parts, *inputs.named_contents(files))

    def describe(self) -> str:
        if isinstance(self._given, str):
            return self._given
        inner = innermost(self._given)
        named = inner if hasattr(inner, "__qualname__") else type(inner)
        return f"{named.__module__}:{named.__qualname__}"

    def apply(self, database: Dsn, limit_s: float) -> None:
        """
        :raises SchemaFailed: `from` what the function raised. One that does not end is left alone in its thread.
        """
        name = self.describe()
        call = _Call(self._function, name, database, limit_s)
        try:
            error = run_apart(call.run, limit_s + _GRACE_S, f"schema from {name}")
        except TimeoutError:
            raise _too_slow(name, limit_s) from None
        if isinstance(error, TDDError):
            raise error
        if error is not None:
            raise _raised(name, error, database.password) from error

    @cached_property
    def _modules(self) -> tuple[inputs.Input, ...]:
        module = file_of(self._function)
        with on_path(self._rootdir):
            return imported(*module) if module is not None else ()

    @cached_property
    def _function(self) -> Callable[..., Any]:
        if isinstance(self._given, str):
            return find_function(self._given, self._rootdir)
        return self._given


class _Call:
    """One call of the function; `run` is called in the thread that is made for it."""

    def __init__(self, function: Callable[..., Any], name: str, database: Dsn, limit_s: float) -> None:
        self._function = function
        self._name = name
        self._database = database
        self._limit_s = limit_s
        self._takes_url = _first_parameter(function, name) in _TAKES_URL

    def run(self) -> None:
        if _is_async(self._function):
            self._run(self._call_async())
        elif self._takes_url:
            self._finish(self._function(self._database.url()))
        else:
            self._call_with_psycopg()

    def _call_with_psycopg(self) -> None:
        import psycopg

        connection = connect(self._database)
        try:
            with TimeLimit(connection, self._limit_s) as limit:
                try:
                    self._finish(self._function(connection))
                finally:
                    if limit.expired:
                        raise _too_slow(self._name, self._limit_s)
            if connection.info.transaction_status > psycopg.pq.TransactionStatus.IDLE and not connection.closed:
                raise _unfinished(self._name)
        finally:
            connection.close()

    async def _call_async(self) -> None:
        if self._takes_url:
            await self._function(self._database.url())
            return
        import asyncpg

        arguments = self._database.asyncpg_arguments()
        arguments["server_settings"] |= {"application_name": this_process()}
        connection = await asyncpg.connect(**arguments)
        try:
            await self._function(connection)
            if not connection.is_closed() and connection.is_in_transaction():
                raise _unfinished(self._name)
        finally:
            connection.terminate()

    def _finish(self, result: object) -> None:
        """A function may give back something to wait for, such as a lambda that calls an async one."""
        if inspect.isawaitable(result):
            self._run(result)

    def _run(self, work: Awaitable[object]) -> None:
        import asyncio

        asyncio.run(self._limited(work))

    async def _limited(self, work: Awaitable[object]) -> None:
        import asyncio

        try:
            async with asyncio.timeout(self._limit_s) as limit:
                await work
        except TimeoutError:
            if limit.expired():
                raise _too_slow(self._name, self._limit_s) from None
            raise


def _is_async(function: Callable[..., Any]) -> bool:
    inner = innermost(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


def _first_parameter(function: Callable[..., Any], name: str) -> str:
    parameters = list(inspect.signature(function).parameters)
    if not parameters:
        raise SchemaFailed(
            f"{name} takes no argument, so it cannot know in which database to build the schema",
            remedy="give it a parameter: url for the database's URL, any other name for a connection",
        )
    return parameters[0]


def _raised(name: str, error: BaseException, password: str | None) -> SchemaFailed:
    said = mask(f"{type(error).__name__}: {error}".strip(), password)
    what = f"the schema could not be built: {name} raised {said}{failure.raised_at(error)}"
    remedy = "correct it and run again; nothing half-built was kept"
    return failure.with_extension(what, failure.missing_extension(said), remedy)


def _too_slow(name: str, limit_s: float) -> SchemaFailed:
    return SchemaFailed(
        f"the schema was not built within {limit_s:.3g} s: {name} had not returned by then",
        cause="it takes long, or waits for something: a lock, an answer, an event loop that is not its own",
        remedy="make it faster, or allow more time",
    )


def _unfinished(name: str) -> SchemaFailed:
    return SchemaFailed(
        f"{name} returned within a transaction, so that nothing since its begin is kept",
        cause="a commit is missing at its end",
        remedy="add it; or do without: statements are committed one by one",
    )
