"""What a test changed outside of its database: roles, settings, other databases. A reset cannot undo it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow.testing.lease.database import Database
from dataflow.testing.reset.footprint import Footprint, Touched
from dataflow.testing.reset.outcome import ClusterChange
from dataflow.testing.reset.questions import places_text

if TYPE_CHECKING:
    import psycopg

# What rows of a shared catalog mean: whether they are of our database, and words for people otherwise.
# Databases of our own come and go meanwhile, and with them entries of the other catalogs.
_OURS = "^tdd_((lease|template|building)_[0-9a-f_]+|[0-9a-f]{12}|first)$"
_ROWS = {
    "pg_authid": "SELECT false, 'role ' || quote_ident(rolname) FROM pg_authid t WHERE {here}",
    "pg_auth_members": (
        "SELECT false, 'membership of ' || member::regrole || ' in ' || roleid::regrole"
        " FROM pg_auth_members t WHERE {here}"
    ),
    "pg_tablespace": "SELECT false, 'tablespace ' || quote_ident(spcname) FROM pg_tablespace t WHERE {here}",
    "pg_parameter_acl": "SELECT false, 'right to set ' || parname FROM pg_parameter_acl t WHERE {here}",
    "pg_database": (
        "SELECT oid = {database}, 'database ' || quote_ident(datname) FROM pg_database t"
        " WHERE {here} AND (oid = {database} OR datname !~ '{ours}')"
    ),
    "pg_db_role_setting": (
        "SELECT setdatabase = {database}, 'settings of ' || CASE WHEN setrole <> 0 THEN setrole::regrole::text"
        " ELSE coalesce((SELECT quote_ident(datname) FROM pg_database WHERE oid = setdatabase), 'all') END"
        " FROM pg_db_role_setting t WHERE {here} AND (setdatabase = {database}"
        " OR setdatabase NOT IN (SELECT oid FROM pg_database WHERE datname ~ '{ours}'))"
    ),
    "pg_shdescription": (
        "SELECT objoid = {database} AND classoid = 'pg_database'::regclass, 'a comment'"
        " FROM pg_shdescription t"
        " WHERE {here} AND (classoid <> 'pg_database'::regclass OR objoid = {database})"
    ),
    "pg_shseclabel": (
        "SELECT objoid = {database} AND classoid = 'pg_database'::regclass, 'a security label'"
        " FROM pg_shseclabel t WHERE {here}"
    ),
    "pg_subscription": (
        "SELECT subdbid = {database}, 'subscription ' || quote_ident(subname) FROM pg_subscription t WHERE {here}"
    ),
    "pg_replication_origin": (
        "SELECT false, 'replication origin ' || roname FROM pg_replication_origin t WHERE {here}"
    ),
}
# Of these, rows that went are worth a word: of the others they go with databases of ours.
_LASTING = ("pg_authid", "pg_auth_members", "pg_tablespace", "pg_parameter_acl")
_REWRITTEN = "a catalog that all databases share was rewritten"


def cluster_change(connection: psycopg.Connection, footprint: Footprint, database: Database) -> ClusterChange:
    """What changed while the database was lent, by its test or by anybody else on the server."""
    own: list[str] = []
    others: list[str] = []
    for filenode, touched in footprint.shared.items():
        relation = database.shape.shared.get(filenode)
        if relation is None:
            if touched.rows_changed:
                return ClusterChange(_REWRITTEN, (), stale=True)
        elif relation.name in _ROWS and (touched.came or touched.gone):
            rows = _rows(connection, relation.name, touched, database.oid)
            if any(is_own for is_own, _ in rows) or _has_lost_settings(connection, relation.name, database):
                own.append(f"settings of the database itself changed ({relation.name})")
            others += [text for is_own, text in rows if not is_own]
    return ClusterChange(own[0] if own else None, tuple(others))


def _has_lost_settings(connection: psycopg.Connection, catalog: str, database: Database) -> bool:
    if catalog != "pg_db_role_setting":
        return False
    row = connection.execute(
        "SELECT count(*) FROM pg_db_role_setting WHERE setdatabase = %s", (database.oid,)
    ).fetchone()
    return row is not None and row[0] != database.shape.settings


def _rows(
    connection: psycopg.Connection, catalog: str, touched: Touched, database: int
) -> list[tuple[bool, str]]:
    """Whether it is of the database itself, and in words, for each row that is new."""
    here = f"t.ctid = ANY ('{places_text(touched.came)}'::tid[])"
    rows = connection.execute(_ROWS[catalog].format(here=here, database=database, ours=_OURS).encode()).fetchall()
    found = [(bool(is_own), str(text)) for is_own, text in rows]
    if touched.gone and catalog in _LASTING:
        query = f"SELECT count(*) FROM {catalog} t WHERE t.ctid = ANY ('{places_text(touched.gone)}'::tid[])"
        row = connection.execute(query.encode()).fetchone()
        # A row that was changed came again.
        went = len(touched.gone) - (int(row[0]) if row else 0) - len(found)
        found += [(False, f"something of {catalog}, which is gone")] * went
    return found
