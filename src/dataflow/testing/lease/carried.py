"""What belongs to a template but is not in its files, so that CREATE DATABASE does not copy it: its settings.

Rights on the database, and its comment, stay behind: who comes in is this library's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import psycopg

# Their values are lists of quoted names: as one text they would be one name.
_LISTS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"})
_READ = """
SELECT rolname::text, split_part(line, '=', 1), substr(line, strpos(line, '=') + 1)
  FROM pg_db_role_setting JOIN pg_database AS of ON of.oid = setdatabase
  LEFT JOIN pg_roles ON pg_roles.oid = setrole, unnest(setconfig) AS line
 WHERE datname = %s
"""


class Setting(NamedTuple):
    """What ALTER DATABASE … SET said, or ALTER ROLE … IN DATABASE … SET if there is a `role`."""

    role: str | None
    name: str
    value: str


def read_settings(connection: psycopg.Connection, database: str) -> tuple[Setting, ...]:
    return tuple(Setting(*row) for row in connection.execute(_READ, (database,)).fetchall())


def set_all(connection: psycopg.Connection, database: str, settings: tuple[Setting, ...]) -> None:
    from psycopg import sql

    for role, name, value in settings:
        whose = sql.SQL("DATABASE {}").format(sql.Identifier(database))
        if role is not None:
            whose = sql.SQL("ROLE {} IN ").format(sql.Identifier(role)) + whose
        is_list = name in _LISTS
        to = sql.SQL("FROM CURRENT") if is_list else sql.SQL("TO {}").format(sql.Literal(value))
        with connection.transaction():
            if is_list:
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
            connection.execute(sql.SQL("ALTER {} SET {} {}").format(whose, sql.Identifier(*name.split(".")), to))
