"""Schema templates: temporary tables by name, so that a test needs one short statement and no migration."""

from __future__ import annotations

from typing import Protocol


class Executes(Protocol):
    async def execute(self, query: str) -> object: ...


BUILT_IN = {
    "simple_user": "id SERIAL PRIMARY KEY, name TEXT, email TEXT",
    "simple_order": "id SERIAL PRIMARY KEY, user_id INT, total DECIMAL",
}


class SchemaTemplates:
    """Column lists by template name.

    A template is what stands between the parentheses of CREATE TABLE, and is trusted SQL; the names of tables
    are not, they are quoted.
    """

    def __init__(self) -> None:
        self._columns = dict(BUILT_IN)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._columns)

    def register(self, template: str, columns: str) -> None:
        """Add a template, for example ``register("tag", "id SERIAL PRIMARY KEY, word TEXT UNIQUE")``.

        :raises ValueError: no columns, or the template exists with other columns.
        """
        columns = columns.strip()
        if not columns:
            raise ValueError(f"schema template {template!r} has no columns")
        if self._columns.get(template, columns) != columns:
            raise ValueError(f"schema template {template!r} exists already with other columns; choose a new name")
        self._columns[template] = columns

    def sql(self, template: str, table: str) -> str:
        """The CREATE TEMP TABLE statement; the table goes with the test's transaction or its connection.

        :raises LookupError: there is no such template; the message lists those that there are.
        :raises ValueError: `table` cannot be a name.
        """
        if template not in self._columns:
            known = ", ".join(sorted(self._columns))
            raise LookupError(f"no schema template {template!r}; there are {known}; add one with register()")
        return f"CREATE TEMP TABLE {_quoted(table)} ({self._columns[template]})"

    async def create(self, connection: Executes, template: str, table: str) -> str:
        """Create the table on `connection`; returns its quoted name, ready for use in SQL."""
        await connection.execute(self.sql(template, table))
        return _quoted(table)


def _quoted(name: str) -> str:
    if not name or "\0" in name:
        raise ValueError(f"{name!r} cannot be the name of a table")
    if len(name.encode()) > 63:
        raise ValueError(f"table name {name[:20]!r}… is longer than 63 bytes; PostgreSQL would cut it")
    return '"' + name.replace('"', '""') + '"'
