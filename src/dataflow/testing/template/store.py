"""The store of template databases: each schema is built once per server, and shared by all who need it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError, TemplateBusy
from dataflow.testing.template import databases, naming
from dataflow.testing.template.building import Builder
from dataflow.testing.template.databases import Database
from dataflow.testing.template.locks import Lock, Right, listed
from dataflow.testing.template.naming import Note
from dataflow.testing.template.pruning import Pruned, Pruner, superfluous
from dataflow.testing.template.rights import Rights, find
from dataflow.testing.template.session import connect, explained, forget, is_alive

if TYPE_CHECKING:
    import psycopg

    from dataflow.testing.template.source import SchemaSource

# How long others may look at a template that is to be replaced; they let go of it at once.
_CLEAR_LIMIT_S = 5.0


class Template(NamedTuple):
    """A template that this process has the right to copy until its store is closed.

    :param built_ms: how long building it took; None: it was there already.
    """

    name: str
    fingerprint: str
    built_ms: float | None


class TemplateInfo(NamedTuple):
    """A template on the server, for people. Times are seconds since the epoch, by the server's clock.

    :param ready: it is finished and sealed. :param users: live processes that use it, or build it.
    :param size: bytes on disk. What is None is not known.
    """

    name: str
    ready: bool
    description: str | None
    built: float | None
    built_ms: float | None
    used: float | None
    size: int | None
    users: tuple[str, ...]


class TemplateStore:
    """Templates on one server.

    A template is a database with a schema and its seed data, sealed: nobody can connect to it, so nobody can
    change it; it is only copied. Its name follows from what it is made from. It is built under another name and
    gets its own as the very last step, so that one with such a name is complete, whoever died meanwhile.

    Processes, workers and hosts find each other through advisory locks, which PostgreSQL keeps **per database**:
    all must name the same maintenance database. Stores that name different ones build templates of their own and
    leave each other's alone. A store is for one thread at a time; it may be used inside of a running event loop,
    which waits meanwhile.

    :param admin: a maintenance database, and a role that may CREATE DATABASE.
    :param builder: as whom the schema is applied, and who owns the templates; may be the same role. Its database
        is not looked at.
    """

    def __init__(self, admin: Dsn, builder: Dsn) -> None:
        self._admin = admin
        self._builder = builder
        self._connection: psycopg.Connection | None = None
        self._pid = os.getpid()
        self._rights = Rights()
        self._closed = False

    @property
    def connection(self) -> psycopg.Connection:
        """The session in use, on the maintenance database, in autocommit; opened anew when it broke.

        :raises ServerError: the store is closed, or the server cannot be reached.
        """
        if self._closed:
            raise ServerError("this store of templates is closed", remedy="make another TemplateStore")
        if self._connection is not None and (self._pid != os.getpid() or not is_alive(self._connection)):
            self._drop_connection()
        if self._connection is None:
            self._connection = connect(self._admin, statement_limit_s=databases.STATEMENT_LIMIT_S)
            self._pid = os.getpid()
            self._rights.take_again(self._connection)
        return self._connection

    def ensure(
        self, source: SchemaSource, limit_s: float, say: Callable[[str], None] = lambda text: None
    ) -> Template:
        """The template of `source`, built by us if it is not there. Nobody drops it until this store is closed.

        :param limit_s: seconds to wait for another builder; and, if it falls to us, for building it.
        :param say: is told, while it waits, for whom.
        :raises SchemaFailed: the schema cannot be built; nothing is left of the attempt.
        :raises TemplateBusy: others build it, or hold it, for longer than that; they are named.
        :raises CannotCreateDatabase: the role may not. :raises ServerError: what else the server refused.
        """
        fingerprint = source.fingerprint()
        connection = self.connection
        with explained("help to prepare the template database"):
            key = self._key(connection, fingerprint)
            template = Template(naming.template_name(key), fingerprint, None)
            if self._rights.take(connection, key, limit_s):
                return template
            with self._building(connection, key, source.describe(), limit_s, say):
                if self._rights.take(connection, key, limit_s):
                    return template
                built_ms = self._build(connection, key, source, fingerprint, limit_s)
        self._prune_old()
        return template._replace(built_ms=built_ms)

    def templates(self) -> tuple[TemplateInfo, ...]:
        """All templates of the server, those under construction included, whoever built them.

        :raises ServerError: the server cannot be asked.
        """
        connection = self.connection
        with explained("list its templates"):
            return tuple(self._described(connection, database) for database in databases.databases(connection))

    def prune(self, unused_for_s: float = 0.0, names: Collection[str] | None = None) -> tuple[Pruned, ...]:
        """Drop templates that no live process uses, and what dead builders left.

        :param unused_for_s: only templates whose last use began so many seconds ago. :param names: only these.
        :return: what became of each that was looked at, and why: in use by whom, for one that was kept.
        :raises ServerError: the server cannot be asked.
        """
        connection = self.connection
        with explained("drop templates"):
            return self._pruner(connection).prune(unused_for_s, names)

    def close(self) -> None:
        """Give up the right to the templates; they stay, for the next run. Harmless when done before."""
        self._closed = True
        self._rights.forget()
        self._drop_connection()

    def _key(self, connection: psycopg.Connection, fingerprint: str) -> str:
        return naming.template_key(
            fingerprint,
            server_version=connection.info.server_version,
            lock_space=connection.info.dbname,
            owner=self._owner(connection),
        )

    def _owner(self, connection: psycopg.Connection) -> str:
        return self._builder.user or connection.info.user

    @contextmanager
    def _building(
        self,
        connection: psycopg.Connection,
        key: str,
        description: str,
        limit_s: float,
        say: Callable[[str], None],
    ) -> Iterator[None]:
        lock = Lock(Right.BUILD, key)
        what = f"the template database {naming.template_name(key)} ({description})"

        def waiting_for(holders: tuple[str, ...]) -> None:
            say(f"waiting up to {limit_s:g} s for {what}, which is being built by {listed(holders)}")

        if not lock.wait(connection, time.monotonic() + limit_s, waiting_for=waiting_for):
            raise _not_ready(what, limit_s, lock.holders(connection))
        try:
            yield
        finally:
            with suppress(Exception):  # a broken session has released it already
                lock.release(connection)

    def _build(
        self, connection: psycopg.Connection, key: str, source: SchemaSource, fingerprint: str, limit_s: float
    ) -> float:
        _clear(connection, key, min(limit_s, _CLEAR_LIMIT_S))
        note = Note(
            fingerprint=fingerprint,
            description=source.describe(),
            server_version=connection.info.server_version,
            lock_space=connection.info.dbname,
            used=databases.server_time(connection),
        )
        # Before the template has its name: whoever prunes must not find it unused.
        self._rights.lock(connection, key, limit_s)
        try:
            builder = Builder(connection, self._admin, self._builder, self._owner(connection))
            return builder.build(key, note, source, limit_s)
        except BaseException:
            with suppress(Exception):
                self._rights.give_up(connection, key)
            raise

    def _prune_old(self) -> None:
        """After a build. What goes wrong here is no reason for the run to fail; the next one tries again."""
        with suppress(Exception):
            connection = self.connection
            names = superfluous(databases.databases(connection), databases.server_time(connection))
            if names:
                self._pruner(connection).prune(0.0, names)

    def _pruner(self, connection: psycopg.Connection) -> Pruner:
        return Pruner(connection, self._admin, connection.info.dbname, self._rights.held)

    def _described(self, connection: psycopg.Connection, database: Database) -> TemplateInfo:
        note = database.note
        users = Lock(Right.USE if database.is_finished else Right.BUILD, database.key).holders(connection)
        return TemplateInfo(
            name=database.name,
            ready=database.is_sealed,
            description=note and note.description,
            built=note and note.built,
            built_ms=note and note.built_ms,
            used=note and note.used,
            size=databases.size(connection, database.name),
            users=("this process", *users) if database.key in self._rights.held else users,
        )

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._pid != os.getpid():
            forget(connection)
        else:
            connection.close()


def _clear(connection: psycopg.Connection, key: str, limit_s: float) -> None:
    """Drop a database that has the name of the template but is not as a builder left it."""
    database = find(connection, key)
    if database is None:
        return
    use = Lock(Right.USE, key)
    if not use.wait(connection, time.monotonic() + limit_s):
        raise _changed_and_used(database.name, use.holders(connection))
    try:
        if here := databases.visitors(connection, database.name):
            raise _changed_and_used(database.name, here)
        databases.drop(connection, database.name)
    finally:
        use.release(connection)


def _not_ready(what: str, limit_s: float, holders: tuple[str, ...]) -> TemplateBusy:
    return TemplateBusy(
        f"{what} was not ready within {limit_s:g} s: it is being built by {listed(holders)}",
        cause="building it takes long, or whoever builds it hangs",
        remedy="allow more time; or end that process, and the next one builds it anew",
    )


def _changed_and_used(name: str, users: tuple[str, ...]) -> TemplateBusy:
    return TemplateBusy(
        f"the template database {name} is not as it was built, and cannot be built anew while others use it: "
        f"{listed(users)}",
        cause="somebody changed it, with ALTER DATABASE or COMMENT ON DATABASE; or the server crashed, "
        "which empties unlogged tables",
        remedy="end these sessions, and run again",
    )
