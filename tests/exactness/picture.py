"""A picture of a database: all rows, sequences and catalogs that somebody who uses it could see a difference in.

Numbers of objects belong to it (a copy of a template has those of the template); what does not is where rows lie,
and the estimates of the planner that ANALYZE and VACUUM keep in `pg_class`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import psycopg

# Not part of the state: storage, and estimates.
_LEFT_OUT = {
    "pg_class": (
        "relfilenode",
        "relpages",
        "reltuples",
        "relallvisible",
        "relallfrozen",
        "relfrozenxid",
        "relminmxid",
    ),
}
_ONLY = {"pg_namespace": "nspname !~ '^pg_(toast_)?temp_'"}
_CATALOGS = """
SELECT c.relname, (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                    WHERE attrelid = c.oid AND attnum > 0 AND NOT attname = ANY (%s))
  FROM pg_class c WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
"""
# Of some types equal values may look different, such as 1.0 and 1.00: with these, rows are compared as text.
_TABLES = """
SELECT oid::regclass::text, NOT EXISTS (
           SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
              AND atttypid NOT IN ('int4'::regtype, 'int8'::regtype, 'text'::regtype, 'timestamp'::regtype))
  FROM pg_class WHERE relkind IN ('r', 'm') AND oid >= 16384 ORDER BY 1
"""
_ROW = '"whole row"'
_SEQUENCES = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S' ORDER BY 1"
# Of the catalogs that all databases share: what is of this one. Its name and number are its own.
_SHARED = {
    "the database itself": (
        "to_jsonb(pg_database) - '{{oid,datname,datfrozenxid,datminmxid,dathasloginevt}}'::text[]"
        " FROM pg_database WHERE {own} = oid"
    ),
    "settings of the database": "ROW(setrole, setconfig) FROM pg_db_role_setting WHERE {own} = setdatabase",
    "comment on the database": "ROW(description) FROM pg_shdescription WHERE {own} = objoid",
    "subscriptions": "ROW(subname) FROM pg_subscription WHERE {own} = subdbid",
    "owners and rights": (
        "ROW(classid, objid, objsubid, refclassid, refobjid, deptype) FROM pg_shdepend WHERE {own} = dbid"
    ),
}
_OWN = "(SELECT oid FROM pg_database WHERE datname = current_database())"
CANNOT_LOOK = "the database cannot be looked at"


class Source(NamedTuple):
    """Where rows are.

    :param row: an expression that is a row. :param origin: what stands behind FROM.
    :param quick: a row that is the same only if the other is, of types that have hash functions.
    """

    row: str
    origin: str
    quick: str | None = None

    def summary(self, name: str) -> str:
        number = (
            f"hash_record_extended({self.quick}, 0)" if self.quick else f"hashtextextended(({self.row})::text, 0)"
        )
        total = f"coalesce(sum(({number})::numeric), 0)::text"
        return f"SELECT {_literal(name)}, count(*), {total} FROM {self.origin}"


class Painter:
    """Knows what there is to see in databases like that of `pristine`, and sees it in others."""

    def __init__(self, pristine: psycopg.Connection) -> None:
        self._pristine = pristine
        self._sources = dict(_sources(pristine))
        self._query = " UNION ALL ".join(source.summary(name) for name, source in self._sources.items()).encode()
        self._expected = self._look(pristine)

    def differences(self, connection: psycopg.Connection) -> list[str]:
        """What is not as in the pristine database, in words."""
        try:
            seen = self._look(connection)
            different = [name for name in self._sources if seen[name] != self._expected[name]]
            return [line for name in different for line in self._difference(connection, name)]
        except psycopg.Error as error:
            return [f"{CANNOT_LOOK}: {error}"]

    def _look(self, connection: psycopg.Connection) -> dict[str, tuple[int, str]]:
        return {name: (count, total) for name, count, total in connection.execute(self._query).fetchall()}

    def _difference(self, connection: psycopg.Connection, name: str) -> Iterator[str]:
        source = self._sources[name]
        query = f"SELECT ({source.row})::text FROM {source.origin}".encode()
        here = Counter(row[0] for row in connection.execute(query).fetchall())
        there = Counter(row[0] for row in self._pristine.execute(query).fetchall())
        for sign, rows in (("too many", here - there), ("missing", there - here)):
            for row, count in list(rows.items())[:3]:
                yield f"{name}: {sign} ({count}): {row[:300]}"
            if len(rows) > 3:
                yield f"{name}: {sign}: {len(rows)} different rows"


def _sources(connection: psycopg.Connection) -> Iterator[tuple[str, Source]]:
    # Names are the server's own, quoted by it.
    left_out = sorted({column for columns in _LEFT_OUT.values() for column in columns})
    for catalog, columns in connection.execute(_CATALOGS, (left_out,)).fetchall():
        origin = f"{catalog} WHERE {_ONLY.get(catalog, 'true')}"
        # Rows of catalogs are never put back, and only those of pg_class are changed in place.
        quick = "ROW(ctid, xmin)" if catalog != "pg_class" else None
        yield f"catalog {catalog}", Source(f"ROW({columns})", origin, quick)
    for table, plain in connection.execute(_TABLES).fetchall():
        yield f"rows of {table}", Source(_ROW, f"ONLY {table} AS {_ROW}", _ROW if plain else None)
    for (sequence,) in connection.execute(_SEQUENCES).fetchall():
        yield f"sequence {sequence}", Source("ROW(last_value, is_called)", sequence)
    for name, text in _SHARED.items():
        row, origin = text.format(own=_OWN).split(" FROM ", 1)
        yield name, Source(row, origin)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_BTREES = """
SELECT bt_index_check(index => c.oid, heapallindexed => true)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
 WHERE amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisready AND i.indisvalid
   AND c.oid >= 16384
"""
_HEAPS = """
SELECT c.oid::regclass::text || ': ' || damage.msg
  FROM pg_class c, LATERAL verify_heapam(c.oid::regclass) AS damage
 WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.oid >= 16384
"""
# Both ways to the same rows: through an index of each kind, and along the table.
_BOTH_WAYS = (
    "SELECT count(*), sum(id) FROM customer WHERE doc @> '{}' AND tags @> '{b}'",
    "SELECT count(*), sum(id) FROM customer WHERE name % 'customer 7' OR attributes ? 'k'",
    "SELECT count(*), sum(id) FROM customer WHERE lower(name) > 'customer' AND age > 30",
    "SELECT count(*), sum(id) FROM purchase WHERE code = (SELECT code FROM purchase ORDER BY id LIMIT 1)",
    "SELECT count(*), sum(id) FROM booking WHERE room = 3 AND during && '[2024-01-01,2024-01-02)'",
    "SELECT count(*), sum(id) FROM big WHERE at BETWEEN '2024-01-02' AND '2024-01-05'",
    "SELECT count(*) FROM happening WHERE at > '2023-06-01' AND kind < 'd'",
)


def damage(connection: psycopg.Connection) -> list[str]:
    """What is wrong with tables and indexes themselves. Nothing without the extension amcheck."""
    if not connection.execute("SELECT FROM pg_extension WHERE extname = 'amcheck'").fetchall():
        return []
    try:
        connection.execute("SET search_path = public")
        connection.execute(_BTREES.encode())
        found = [str(row[0]) for row in connection.execute(_HEAPS.encode()).fetchall()]
        for query in _BOTH_WAYS:
            rows = []
            for off in ("enable_seqscan", "enable_indexscan, enable_bitmapscan, enable_indexonlyscan"):
                with connection.transaction(force_rollback=True):
                    for setting in off.split(", "):
                        connection.execute(f"SET LOCAL {setting} = off".encode())
                    rows.append(connection.execute(query.encode()).fetchall())
            if rows[0] != rows[1]:
                found.append(f"{query}: {rows[0]} through indexes, {rows[1]} without")
    except psycopg.Error as error:
        return [str(error)]
    return found
