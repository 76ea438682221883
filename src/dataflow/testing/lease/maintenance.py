"""The session from which the databases of a process are looked after, and all that depends on it.

It breaks when the server goes away; then all of it is made anew, and only what is lent stays. Who gets which
database is decided in `broker`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from time import monotonic, sleep

import psycopg
from psycopg.pq import TransactionStatus

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import ServerError, ServerUnreachable
from dataflow.testing.lease import owner
from dataflow.testing.lease.clones import Clones
from dataflow.testing.lease.connecting import connect, silent_settings
from dataflow.testing.lease.inplace import InPlace
from dataflow.testing.lease.strategy import Method, Strategy, choose, facts
from dataflow.testing.reset.log import Log, install
from dataflow.testing.reset.seeds import Seeds
from dataflow.testing.template.session import explained, first_words

# How long a server that crashed may take to come back, in seconds.
_RECOVERY_LIMIT_S = 30.0

NameOfTemplate = Callable[[], str | None]


class Maintenance:
    """Open from the beginning.

    :param admin: maintenance database, and a role that may create databases. :param owner: role that will own
        the copies. :param template: says what to copy; see `Broker`. :param spares: copies that are kept ready.
    :param limit_s: longest wait for a copy, in seconds.
    :ivar connection: the session; it holds the lock that says that our databases are ours.
    :ivar strategy: what the server allows. :ivar clones: copies of the template.
    :ivar in_place: puts databases back; None where the server does not allow it.
    :raises CannotCreateDatabase: the role may not. :raises ServerError: the server cannot be used.
    """

    connection: psycopg.Connection
    strategy: Strategy
    clones: Clones
    in_place: InPlace | None

    def __init__(self, admin: Dsn, owner: str, template: NameOfTemplate, *, spares: int, limit_s: float) -> None:
        self._admin = admin
        self._given_owner = owner
        self._template = template
        self._spares = spares
        self._limit_s = limit_s
        self._silent: Mapping[str, str] = {}
        with explained("prepare databases for tests"):
            self._open(lent=(), earlier=())

    @property
    def lost(self) -> bool:
        """The session broke, or has an answer for which nobody waited to the end."""
        return self.connection.closed or self.connection.info.transaction_status != TransactionStatus.IDLE

    @property
    def owner(self) -> str:
        """Whose the copies are; where the address names nobody, whoever the session is."""
        return self._given_owner or self.connection.info.user

    def open_again(self, lent: Collection[str]) -> None:
        """When it was lost: what was there is not trusted, and dropped, but for databases that are lent.

        :raises ServerUnreachable: the server does not come back.
        """
        self.connection.close()
        deadline = monotonic() + _RECOVERY_LIMIT_S
        while True:
            try:
                self._open(lent, earlier=self.clones.close(None))
                return
            except ServerUnreachable:
                if monotonic() > deadline:
                    raise
                sleep(0.02)

    def enter(self, database: str | None) -> psycopg.Connection:
        """A session of ours in a database, in which no triggers fire; or for None one for administration."""
        if database is None:
            return connect(self._admin)
        return connect(self._admin.with_database(database), self._silent)

    def close(self) -> None:
        """Drop all databases, the lent ones, too. Idempotent."""
        with suppress(psycopg.Error, ServerError):
            if not self._answers():
                self.connection.close()
                self.connection = connect(self._admin)
        self.clones.close(self.connection)
        self.connection.close()

    def _answers(self) -> bool:
        try:
            self.connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _open(self, lent: Collection[str], earlier: Collection[str]) -> None:
        """:param lent: stay. :param earlier: ours from before the server was away.

        :raises ServerUnreachable: it is away, or went away just now.
        """
        connection = connect(self._admin)
        try:
            self._prepare(connection, lent, earlier)
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.OperationalError):
                raise _went_away(error) from error
            raise
        self.connection = connection

    def _prepare(self, connection: psycopg.Connection, lent: Collection[str], earlier: Collection[str]) -> None:
        self.strategy = choose(facts(connection))
        by_log = self.strategy.method is Method.LOG
        if by_log:
            self._silent = silent_settings(connection.info.server_version)
        token = owner.new_token()
        # What is lent stays ours, though the lock that said so went with the last session.
        for held in {token, *map(owner.token_of, lent)}:
            owner.own(connection, held)
        owner.drop_orphans(connection, self.enter, lent)
        if by_log:
            install(connection)
        self.in_place = InPlace(Log(connection), connection, Seeds(self._pristine)) if by_log else None
        self.clones = Clones(
            self.enter,
            template=self._template(),
            owner=self._given_owner or connection.info.user,
            token=token,
            most=self._spares,
            earlier=earlier,
        )
        for name in set(earlier) - set(lent):
            self.clones.give_up(name)

    @contextmanager
    def _pristine(self) -> Iterator[psycopg.Connection]:
        """A connection to a copy that no test has used."""
        with self.clones.borrow(self._limit_s) as name, closing(self.enter(name)) as connection:
            yield connection


def _went_away(error: psycopg.OperationalError) -> ServerUnreachable:
    return ServerUnreachable(
        f"the server went away while databases for tests were prepared: {first_words(error)}",
        cause="it crashed, or was restarted; or somebody ended the session",
        remedy="run the tests again; its log says more",
    )
