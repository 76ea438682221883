"""What a template looks like, as far as a reset has to know. Read once from a database that is as cloned."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import psycopg

# Relations below this oid came with initdb.
FIRST_OF_USERS = 16_384
# The access method whose log records are known here; its oid is the same everywhere.
_HEAP = 2
# A table of at most this size, with what it keeps out of line, is put back row by row; a larger one is not.
SMALL_BYTES = 256 * 1024

# What a rewrite of a relation's file, or statistics, change in pg_class. All else is schema.
_STORAGE_COLUMNS = (
    "relfilenode",
    "relpages",
    "reltuples",
    "relallvisible",
    "relallfrozen",
    "relfrozenxid",
    "relminmxid",
)
SCHEMA_HASH = f"hashtextextended((to_jsonb(c) - '{{{','.join(_STORAGE_COLUMNS)}}}'::text[])::text, 0)"

# Functions in SQL or a procedural language that stored columns and indexes depend on. They say that they are
# immutable, and the server believes it; what they give may yet depend on settings of the session, as TimeZone.
_COMPUTED = f"""
SELECT coalesce(a.attrelid, i.indrelid)
  FROM pg_depend d
  LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
  JOIN pg_proc p ON p.oid = CASE WHEN d.refclassid = 'pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
  JOIN pg_language l ON l.oid = p.prolang
  LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
  LEFT JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated = 's'
  LEFT JOIN pg_index i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid
 WHERE d.refobjid >= {FIRST_OF_USERS} AND l.lanname NOT IN ('internal', 'c')
   AND d.classid IN ('pg_attrdef'::regclass, 'pg_class'::regclass)
"""
# Has triggers or rules that fire for us as well.
REACTS = """
EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled IN ('A', 'R'))
  OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_enabled IN ('A', 'R'))
"""
_RELATIONS = f"""
SELECT c.oid::bigint, pg_relation_filenode(c.oid)::bigint, c.oid::regclass::text, c.relkind::text,
       c.relpersistence::text, c.relisshared, c.relfilenode = 0, c.reltoastrelid <> 0,
       CASE WHEN c.oid >= {FIRST_OF_USERS} AND c.relkind = 'r' THEN pg_table_size(c.oid) ELSE 0 END,
       CASE WHEN c.oid >= {FIRST_OF_USERS} AND c.relkind = 'r' THEN pg_relation_size(c.oid) ELSE 0 END,
       {SCHEMA_HASH},
       CASE WHEN c.relkind = 't' THEN coalesce(o.oid, c.oid)::bigint < {FIRST_OF_USERS}
            ELSE c.oid < {FIRST_OF_USERS} END,
       {REACTS},
       c.relkind NOT IN ('r', 'm', 't') OR c.relam = {_HEAP},
       coalesce(c.oid = ANY (ARRAY({_COMPUTED})), false)
  FROM pg_class c LEFT JOIN pg_class o ON c.relkind = 't' AND o.reltoastrelid = c.oid
 WHERE pg_relation_filenode(c.oid) IS NOT NULL
"""
_SETTINGS = """
SELECT count(*) FROM pg_db_role_setting
 WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Relation(NamedTuple):
    """One relation with a file of its own.

    :param name: as SQL, qualified where needed with an empty search path. :param kind: as in `pg_class.relkind`.
    :param persistence: ``p`` or ``u`` (unlogged). :param mapped: its file is not named by `pg_class`.
    :param size_bytes: with what it keeps out of line. :param main_bytes: of its rows alone; 0: it is empty.
    :param catalog: it came with initdb. :param reacts: it has triggers or rules that always fire.
    :param known: how it keeps its rows is known here. :param computes: functions of the schema compute columns or
        index entries, and may give others in another session.
    """

    oid: int
    filenode: int
    name: str
    kind: str
    persistence: str
    shared: bool
    mapped: bool
    has_toast: bool
    size_bytes: int
    main_bytes: int
    schema_hash: int
    catalog: bool
    reacts: bool
    known: bool = True
    computes: bool = False

    @property
    def small(self) -> bool:
        return self.size_bytes <= SMALL_BYTES


class SequenceState(NamedTuple):
    """What `setval` puts a sequence back to. :param ahead: its next values are in the log already."""

    name: str
    last_value: int
    is_called: bool
    ahead: bool = False


class Shape(NamedTuple):
    """A template as its clones begin.

    :param files: relations by the number of their file; `shared` those that belong to no database.
    :param relations: by oid. :param sequences: by oid. :param unlogged: what leaves no trace in the log, and so
        has to be put back always. :param exotic: a relation that keeps its rows as no one here knows, if any.
    :param settings: how many rows of `pg_db_role_setting` are of the database.
    """

    files: dict[int, Relation]
    shared: dict[int, Relation]
    relations: dict[int, Relation]
    sequences: dict[int, SequenceState]
    unlogged: tuple[Relation, ...] = ()
    exotic: str | None = None
    settings: int = 0

    def with_files(self, moved: Mapping[int, int]) -> Shape:
        """The same with other files: oid of a relation to the number of its new file."""
        relations = dict(self.relations)
        for oid, filenode in moved.items():
            relations[oid] = relations[oid]._replace(filenode=filenode)
        return from_relations(relations.values(), self.sequences, self.settings)


def from_relations(
    relations: Collection[Relation], sequences: dict[int, SequenceState], settings: int = 0
) -> Shape:
    return Shape(
        files={relation.filenode: relation for relation in relations if not relation.shared},
        shared={relation.filenode: relation for relation in relations if relation.shared},
        relations={relation.oid: relation for relation in relations},
        sequences=sequences,
        unlogged=tuple(
            relation for relation in relations if relation.persistence == "u" and relation.kind in "rS"
        ),
        exotic=next((relation.name for relation in relations if not relation.known), None),
        settings=settings,
    )


def read_shape(connection: psycopg.Connection) -> Shape:
    """The shape of the database of `connection`, which must be as cloned.

    Names are such as an empty search path needs them; the restoring connection has one too.
    """
    rows = connection.execute(_RELATIONS.encode()).fetchall()
    relations = [Relation(*row) for row in rows]
    sequences = [r for r in relations if r.kind == "S"]
    row = connection.execute(_SETTINGS.encode()).fetchone()
    return from_relations(relations, _sequences(connection, sequences), int(row[0]) if row else 0)


def _sequences(connection: psycopg.Connection, sequences: list[Relation]) -> dict[int, SequenceState]:
    if not sequences:
        return {}
    # The names are the server's own, quoted by it.
    query = " UNION ALL ".join(
        f"SELECT {s.oid}::bigint, last_value, is_called, log_cnt <> 0 FROM {s.name}" for s in sequences
    )
    names = {s.oid: s.name for s in sequences}
    return {
        int(oid): SequenceState(names[int(oid)], int(last), bool(called), bool(ahead))
        for oid, last, called, ahead in connection.execute(query.encode()).fetchall()
    }
