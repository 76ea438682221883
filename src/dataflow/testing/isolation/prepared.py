"""Prepared statements and cursors of a test: asyncpg's own, but one that runs past its limit says so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import perf_counter
from typing import Any

import asyncpg
from asyncpg.cursor import Cursor, CursorFactory, CursorIterator
from asyncpg.prepared_stmt import PreparedStatement


def told(made: Any) -> Any:
    """The same object, with methods that tell of a timeout in words. Its statement log is not written by them."""
    kind = _KINDS.get(type(made))
    if kind is not None:
        made.__class__ = kind
    return made


def _telling(name: str, kind: type) -> Callable[..., Any]:
    original = getattr(kind, name)

    @functools.wraps(original)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        started = perf_counter()
        try:
            return await original(self, *args, **kwargs)
        except TimeoutError as error:
            raise _told(self._connection, self._query, started, kwargs.get("timeout"), error) from error
        except asyncpg.PostgresError:
            _note_failure(self._connection, self._query)
            raise

    return method


def _told(connection: Any, query: str, started: float, given: float | None, error: Exception) -> Exception:
    handle = connection.handle
    if handle is None:
        return error
    handle.log.failed = query
    told: Exception = handle.timed_out(query, started, given)
    return told


def _note_failure(connection: Any, query: str) -> None:
    if connection.handle is not None:
        connection.handle.log.failed = query


def _subclass(kind: type, *names: str) -> type:
    methods = {name: _telling(name, kind) for name in names if hasattr(kind, name)}
    return type(f"Test{kind.__name__}", (kind,), {"__slots__": (), **methods})


_Statement: Any = _subclass(
    PreparedStatement, "fetch", "fetchrow", "fetchval", "fetchmany", "executemany", "explain"
)
_Cursor: Any = _subclass(Cursor, "fetch", "fetchrow", "forward")
_Iterator: Any = _subclass(CursorIterator, "__anext__")


class _StatementWithCursor(_Statement):  # type: ignore[misc]
    __slots__ = ()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return told(super().cursor(*args, **kwargs))


class _Factory(CursorFactory):
    __slots__ = ()

    # asyncpg's own, which its type stubs do not tell.
    _connection: Any
    _query: str
    _timeout: float | None

    def __aiter__(self) -> Any:
        return told(super().__aiter__())

    def __await__(self) -> Any:
        started = perf_counter()
        try:
            cursor = yield from super().__await__()
        except TimeoutError as error:
            raise _told(self._connection, self._query, started, self._timeout, error) from error
        return told(cursor)


_KINDS: dict[type, Any] = {
    PreparedStatement: _StatementWithCursor,
    CursorFactory: _Factory,
    Cursor: _Cursor,
    CursorIterator: _Iterator,
}
