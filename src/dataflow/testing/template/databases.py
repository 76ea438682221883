"""Statements about whole databases, on a session of the maintenance database. Each with its error in words."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.errors import CannotCreateDatabase, ServerError, TemplateBusy
from dataflow.testing.template.locks import holder_text, listed
from dataflow.testing.template.naming import BUILDING, TEMPLATE, Note, key_of
from dataflow.testing.template.session import explained, first_words

if TYPE_CHECKING:
    import psycopg

# No statement of ours waits for longer, but for those on the schema itself. A checkpoint may be part of it.
STATEMENT_LIMIT_S = 60.0
# A backend that was told to end does so within milliseconds, unless it is in a function that does not listen.
_END_LIMIT_S = 10.0
_POLL_S = 0.005
# Copying files writes little log, and was faster at every size that was measured.
_FILE_COPY_SINCE = 150_000


class Database(NamedTuple):
    """A database of ours, as the server describes it.

    :param note: None when its comment is not readable. :param last_crash: of the server; see `last_crash`.
    """

    name: str
    key: str
    allows_connections: bool
    is_template: bool
    note: Note | None
    last_crash: float = 0.0

    @property
    def is_finished(self) -> bool:
        return self.name.startswith(TEMPLATE)

    @property
    def is_sealed(self) -> bool:
        """It is as its builder left it; anything else was done by others, or by a crash of the server."""
        if (
            self.note is None
            or self.note.built is None
            or self.note.no_crash_since not in (None, self.last_crash)
        ):
            return False
        return self.is_finished and self.is_template and not self.allows_connections


def databases(connection: psycopg.Connection) -> tuple[Database, ...]:
    """All templates of the server, those under construction included."""
    crash = last_crash(connection)
    rows = connection.execute(
        "SELECT datname, datallowconn, datistemplate, shobj_description(oid, 'pg_database') FROM pg_database"
        " WHERE starts_with(datname, %s) OR starts_with(datname, %s) ORDER BY datname",
        (TEMPLATE, BUILDING),
    ).fetchall()
    return tuple(
        Database(name, key, allows, template, Note.load(comment), crash)
        for name, allows, template, comment in rows
        if (key := key_of(name)) is not None
    )


def create(connection: psycopg.Connection, name: str, owner: str, template: str = "template0") -> None:
    """A copy of `template`.

    :raises CannotCreateDatabase: the role lacks the right.
    :raises TemplateBusy: somebody is connected to `template`; they are named.
    """
    import psycopg
    from psycopg import sql

    strategy = " STRATEGY FILE_COPY" if connection.info.server_version >= _FILE_COPY_SINCE else ""
    statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}" + strategy).format(
        sql.Identifier(name), sql.Identifier(owner), sql.Identifier(template)
    )
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise _may_not_create(connection, owner, error) from error
    except psycopg.errors.ObjectInUse as error:
        raise TemplateBusy(
            f"the database {template} cannot be copied while others are connected to it: "
            + listed(visitors(connection, template)),
            cause="a program, or a person, has opened it",
            remedy="end their sessions",
        ) from error
    except psycopg.Error as error:
        raise ServerError(f"no database could be created: {first_words(error)}") from error


def drop(connection: psycopg.Connection, name: str) -> None:
    """Drop a template, a sealed one too, unless somebody is in it; harmless when there is none.

    :raises ServerError: it cannot be dropped; a seal is kept then.
    """
    from psycopg import sql

    row = connection.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", (name,)).fetchone()
    if row is None:
        return
    (is_template,) = row
    identifier = sql.Identifier(name)
    with explained(f"drop the database {name}"):
        if is_template:
            connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(identifier))
        try:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(identifier))
        except BaseException:
            if is_template:
                with suppress(Exception):
                    connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE true").format(identifier))
            raise


def close_to_all(connection: psycopg.Connection, name: str) -> None:
    """Nobody can connect from now on, superusers included; anybody who may create databases can copy it."""
    from psycopg import sql

    with explained(f"close the database {name}"):
        connection.execute(
            sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true").format(
                sql.Identifier(name)
            )
        )


def annotate(connection: psycopg.Connection, name: str, note: Note) -> None:
    from psycopg import sql

    with explained(f"comment on the database {name}"):
        connection.execute(
            sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(note.dump()))
        )


def rename(connection: psycopg.Connection, name: str, new: str) -> None:
    from psycopg import sql

    with explained(f"rename the database {name}"):
        connection.execute(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(new))
        )


def visitors(connection: psycopg.Connection, name: str) -> tuple[str, ...]:
    """Who is connected to a database, other than this session. The server's own workers, which have no user, make
    way by themselves."""
    rows = connection.execute(
        "SELECT pid, coalesce(nullif(application_name, ''), backend_type),"
        " extract(epoch FROM now() - backend_start)::float8 FROM pg_stat_activity"
        " WHERE datname = %s AND pid <> pg_backend_pid() AND usesysid IS NOT NULL ORDER BY pid",
        (name,),
    ).fetchall()
    return tuple(holder_text(*row) for row in rows)


def end_visitors(connection: psycopg.Connection, name: str) -> None:
    """End all other sessions in a database, and wait until they are gone.

    :raises ServerError: one does not end, or may not be ended by our role.
    """
    deadline = time.monotonic() + _END_LIMIT_S
    while here := visitors(connection, name):
        if time.monotonic() > deadline:
            raise ServerError(
                f"sessions in the database {name} did not end within {_END_LIMIT_S:g} s: {listed(here)}",
                cause="they run something that cannot be interrupted",
                remedy="end these programs",
            )
        with explained(f"end the sessions in the database {name}, {listed(here)}"):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND pid <> pg_backend_pid() AND usesysid IS NOT NULL",
                (name,),
            )
        time.sleep(_POLL_S)


def size(connection: psycopg.Connection, name: str) -> int | None:
    """Bytes on disk; None when the role may not know, or when it has gone or is just going."""
    import psycopg

    try:
        row = connection.execute("SELECT pg_database_size(%s::name)", (name,)).fetchone()
    except psycopg.Error:
        return None
    return row[0] if row else None


def server_time(connection: psycopg.Connection) -> float:
    """The server's clock, seconds since the epoch: the one that all hosts share."""
    (now,) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone() or (0.0,)
    return float(now)


def last_crash(connection: psycopg.Connection) -> float:
    """When the server began to count anew, in seconds since the epoch: one that crashed does so when it recovers,
    one that was stopped in order does not. `pg_stat_reset_shared` looks like a crash, which only costs time."""
    query = "SELECT extract(epoch FROM stats_reset)::float8 FROM pg_stat_bgwriter"
    (reset,) = connection.execute(query).fetchone() or (0.0,)
    return float(reset or 0.0)


def _may_not_create(connection: psycopg.Connection, owner: str, error: psycopg.Error) -> ServerError:
    from psycopg import sql

    role, may = connection.execute(
        "SELECT rolname, rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
    ).fetchone() or ("?", False)
    quoted, quoted_owner = (sql.Identifier(name).as_string(connection) for name in (role, owner))
    if may:
        return CannotCreateDatabase(
            f"the role {role!r} may not create a database for the role {owner!r}: {first_words(error)}",
            cause=f"it is no member of {owner!r}",
            remedy=f"GRANT {quoted_owner} TO {quoted};",
            option="TEST_DATABASE_URL; leave it unset for the embedded server",
        )
    return CannotCreateDatabase(
        f"the role {role!r} may not create databases, and so no templates of databases",
        cause="it does not have the right CREATEDB",
        remedy=f"as a superuser: ALTER ROLE {quoted} CREATEDB;",
        option="TEST_DATABASE_URL; leave it unset for the embedded server",
    )
