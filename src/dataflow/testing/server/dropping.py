"""Dropping a database, whoever is in it, whatever was prepared there, whatever replicates from or to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    import psycopg


_ENDED_INSIDE = """
SELECT 'prepared', gid FROM pg_prepared_xacts WHERE database = %(name)s
UNION ALL
SELECT 'subscription', subname FROM pg_subscription
 WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = %(name)s)
"""
# {0} is a text, {1} a name. What a subscription has on the other server is not ours to drop.
_ENDS: dict[str, tuple[LiteralString, ...]] = {
    "prepared": ("ROLLBACK PREPARED {0}",),
    "subscription": (
        "ALTER SUBSCRIPTION {1} DISABLE",
        "ALTER SUBSCRIPTION {1} SET (slot_name = NONE)",
        "DROP SUBSCRIPTION {1}",
    ),
}
_DROP_SLOTS = (
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s AND NOT active"
)
_IS_TEMPLATE = "SELECT 1 FROM pg_database WHERE datname = %s AND datistemplate"


def drop_database(connection: psycopg.Connection, name: str, enter: Callable[[str], psycopg.Connection]) -> None:
    """Harmless when it is not there.

    :param enter: opens a connection to a database; transactions prepared for a two-phase commit, and
        subscriptions, keep it from being dropped, and can be ended only from inside.
    """
    from psycopg import sql

    inside = connection.execute(_ENDED_INSIDE, {"name": name}).fetchall()
    if inside:
        with enter(name) as session:
            for kind, what in inside:
                for statement in _ENDS[kind]:
                    session.execute(sql.SQL(statement).format(sql.Literal(what), sql.Identifier(what)))
    connection.execute(_DROP_SLOTS, (name,))
    if connection.execute(_IS_TEMPLATE, (name,)).fetchone():
        connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name)))
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
