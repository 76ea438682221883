"""The rows of a template's small tables, read once from a database that is as cloned, and kept as they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from dataflow.testing.reset.shape import Relation

if TYPE_CHECKING:
    import psycopg

_COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
 WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""


# The columns as a list in SQL, and the rows as COPY writes them.
Rows = tuple[str, bytes]


class Seeds:
    """:param pristine: lends a connection to a database that is as cloned."""

    def __init__(self, pristine: Callable[[], AbstractContextManager[psycopg.Connection]]) -> None:
        self._pristine = pristine
        self._kept: dict[int, Rows] = {}

    def of(self, relation: Relation) -> Rows | None:
        """None for a table without rows."""
        if relation.main_bytes == 0:
            return None
        kept = self._kept.get(relation.oid)
        if kept is None:
            with self._pristine() as connection:
                kept = self._kept[relation.oid] = _read(connection, relation)
        return kept


def _read(connection: psycopg.Connection, relation: Relation) -> Rows:
    row = connection.execute(_COLUMNS, (relation.oid,)).fetchone()
    columns = row[0] if row and row[0] else ""
    with connection.cursor() as cursor:
        return columns, b"".join(_copied(cursor, relation, columns))


def _copied(cursor: psycopg.Cursor, relation: Relation, columns: str) -> Iterator[bytes]:
    # Names are the server's own, quoted by it.
    selected = f"SELECT {columns} FROM ONLY {relation.name} ORDER BY ctid"
    with cursor.copy(f"COPY ({selected}) TO STDOUT".encode()) as copy:
        for block in copy:
            yield bytes(block)
