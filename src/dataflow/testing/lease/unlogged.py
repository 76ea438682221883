"""Whether a template still has the rows of its unlogged tables: a crash of the server empties them, everywhere.

The memory of it is a pair of tables in the maintenance database, one of them unlogged: a crash empties that one,
too. So a template that stands in the first and not in the second has lived through a crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow.testing.errors import ServerError

if TYPE_CHECKING:
    import psycopg

_TABLES = """
SELECT pg_advisory_xact_lock(32209, 0);
CREATE SCHEMA IF NOT EXISTS dataflow_tdd;
CREATE TABLE IF NOT EXISTS dataflow_tdd.with_unlogged_rows (template oid PRIMARY KEY);
CREATE UNLOGGED TABLE IF NOT EXISTS dataflow_tdd.intact_since_crash (template oid PRIMARY KEY)
"""
_FORGET = "DELETE FROM dataflow_tdd.{table} WHERE template NOT IN (SELECT oid FROM pg_database)"
_KNOWN = """
SELECT EXISTS (SELECT FROM dataflow_tdd.with_unlogged_rows AS known WHERE known.template = d.oid),
       EXISTS (SELECT FROM dataflow_tdd.intact_since_crash AS intact WHERE intact.template = d.oid)
  FROM pg_database AS d WHERE datname = %s
"""
_REMEMBER = (
    "INSERT INTO dataflow_tdd.{table} SELECT oid FROM pg_database WHERE datname = %s ON CONFLICT DO NOTHING"
)
_BOTH = ("with_unlogged_rows", "intact_since_crash")


def is_intact(connection: psycopg.Connection, template: str) -> bool:
    """Whether no crash came since the template was seen for the first time. It is remembered from now on.

    Call it when the template has just been built, if it has unlogged relations, and whenever it is used.

    :param connection: to the maintenance database, as a role that may create a schema there.
    """
    with connection.transaction():
        connection.execute(_TABLES.encode())
        for table in _BOTH:
            connection.execute(_FORGET.format(table=table).encode())
        row = connection.execute(_KNOWN, (template,)).fetchone()
        known, intact = row if row is not None else (False, False)
        if known and not intact:
            return False
        for table in _BOTH:
            connection.execute(_REMEMBER.format(table=table).encode(), (template,))
    return True


def emptied(template: str) -> ServerError:
    return ServerError(
        f"the template {template} has lost the rows of its unlogged tables",
        cause="the server crashed or was killed since the template was built; PostgreSQL empties unlogged tables "
        "when it recovers",
        remedy="drop the template and have it built again: dataflow-tdd templates prune --all",
    )
