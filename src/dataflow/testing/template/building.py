"""Building one template: a database under a name of its own, the schema, the seal, and last the real name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed, TDDError
from dataflow.testing.masking import mask
from dataflow.testing.server.dropping import drop_database
from dataflow.testing.template import databases, failure, naming
from dataflow.testing.template.naming import Note
from dataflow.testing.template.session import connect, explained

if TYPE_CHECKING:
    import psycopg

    from dataflow.testing.template.source import SchemaSource

_SEQUENCES = """
SELECT pg_class.oid, nspname, relname
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE relkind = 'S' AND relpersistence <> 't'
"""
_HAS_UNLOGGED = "SELECT EXISTS (SELECT FROM pg_class WHERE relpersistence = 'u')"


class Builder:
    """Builds the template of one key. The build lock is the caller's, held by `connection` all the time.

    A connection that breaks takes the lock with it, and so must end the build: it is never opened again here.

    :param admin: the maintenance database. :param owner: as whom the schema is applied, and whose it is.
    """

    def __init__(self, connection: psycopg.Connection, admin: Dsn, builder: Dsn, owner: str) -> None:
        self._connection = connection
        self._admin = admin
        self._builder = builder
        self._owner = owner

    def build(self, key: str, note: Note, source: SchemaSource, limit_s: float) -> float:
        """How long it took, in ms. Whatever fails, nothing is left of it.

        :param limit_s: seconds for the schema, and again for what is done to it after that.
        :raises SchemaFailed: what the source says. :raises ServerError: what the server refused.
        """
        self._drop_leftovers(key)
        name = naming.building_name(key)
        began = time.monotonic()
        try:
            databases.create(self._connection, name, self._owner)
            # The note says where its lock is, so that others can find out whether its builder lives.
            databases.annotate(self._connection, name, note)
            _apply(source, self._builder.with_database(name), limit_s)
            _check_unchanged(source, note.fingerprint)
            databases.end_visitors(self._connection, name)
            no_crash_since = self._normalise(name, limit_s)
            databases.close_to_all(self._connection, name)
            databases.end_visitors(self._connection, name)
            built_ms = round((time.monotonic() - began) * 1000, 1)
            now = databases.server_time(self._connection)
            finished = note._replace(used=now, built=now, built_ms=built_ms, no_crash_since=no_crash_since)
            databases.annotate(self._connection, name, finished)
            databases.rename(self._connection, name, naming.template_name(key))
        except BaseException as error:
            self._discard(name, error)
            raise
        return built_ms

    def _drop_leftovers(self, key: str) -> None:
        """We hold the lock, so whoever made them is dead."""
        for database in databases.databases(self._connection):
            if database.key == key and not database.is_finished:
                discard(self._connection, self._admin, database.name)

    def _normalise(self, name: str, limit_s: float) -> float | None:
        """Make equal what depends on how the schema was built: where sequences stand in the log, what of rows
        and statistics is written only later.

        :return: the note's `no_crash_since`.
        """
        with connect(self._admin.with_database(name), statement_limit_s=limit_s) as inside:
            _refuse_prepared(inside)
            with explained("set the sequences of the schema to what they are"):
                set_sequences(inside)
            with explained("vacuum the schema"):
                inside.execute("VACUUM (FREEZE, ANALYZE)")
            row = inside.execute(_HAS_UNLOGGED).fetchone()
            return databases.last_crash(inside) if row and row[0] else None

    def _discard(self, name: str, error: BaseException) -> None:
        """By a new session: ours may be what broke, and nobody else uses this name."""
        try:
            with connect(self._admin, statement_limit_s=databases.STATEMENT_LIMIT_S) as connection:
                discard(connection, self._admin, name)
        except Exception as another:
            error.add_note(f"The half-built database {name} could not be dropped: {another}")


def discard(connection: psycopg.Connection, admin: Dsn, name: str) -> None:
    """Drop a half-built database, with all that is in it.

    :raises ServerError: it cannot be dropped.
    """

    def enter(database: str) -> psycopg.Connection:
        return connect(admin.with_database(database), statement_limit_s=databases.STATEMENT_LIMIT_S)

    with explained(f"drop the database {name}"):
        drop_database(connection, name, enter)


def set_sequences(connection: psycopg.Connection) -> None:
    """Each sequence to where it stands. That makes it forget which values it has written to the log ahead
    (`log_cnt`), which a copy would otherwise inherit; `is_called` stays."""
    from psycopg import sql

    for oid, schema, name in connection.execute(_SEQUENCES).fetchall():
        connection.execute(
            sql.SQL("SELECT setval(%s::oid::regclass, last_value, is_called) FROM {}").format(
                sql.Identifier(schema, name)
            ),
            (oid,),
        )


def _refuse_prepared(connection: psycopg.Connection) -> None:
    left = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()").fetchall()
    if left:
        raise SchemaFailed(
            "the schema was left with prepared transactions: " + ", ".join(repr(gid) for (gid,) in left),
            cause="a PREPARE TRANSACTION without COMMIT PREPARED; such a database cannot be copied",
            remedy="commit or roll them back at the end",
        )


def _apply(source: SchemaSource, database: Dsn, limit_s: float) -> None:
    try:
        source.apply(database, limit_s)
    except TDDError:
        raise
    except Exception as error:  # of a source that is not ours
        said = mask(f"{type(error).__name__}: {error}", database.password)
        raise SchemaFailed(
            f"the schema could not be built: {source.describe()}: {said}{failure.raised_at(error)}",
            remedy="correct it and run again; nothing half-built was kept",
        ) from error


def _check_unchanged(source: SchemaSource, fingerprint: str) -> None:
    if source.fingerprint() != fingerprint:
        raise SchemaFailed(
            f"the schema was not built: what it is made from changed meanwhile ({source.describe()})",
            cause="somebody saved a file or changed a branch; or building writes among the files that it is made "
            "from",
            remedy="run again; if it happens again, name only the files that building reads, and not writes",
        )
