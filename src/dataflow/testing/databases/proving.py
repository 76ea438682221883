"""Whether the database of the rollback tests was left alone by others, and making it as it was if not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dataflow.testing.errors import ServerError
from dataflow.testing.proof.escape import Escape, PutBack, Verdict

if TYPE_CHECKING:
    from dataflow.testing.isolation.server_protocol import Server
    from dataflow.testing.proof.horizon import Horizon, Window
    from dataflow.testing.proof.witness import Witness

_WITHOUT_PSYCOPG = "something was committed meanwhile, and psycopg, which would read where, cannot be imported"


class Proving:
    """Of one process.

    :param server: the one in use. :param renew: puts a fresh copy of the template in the place of a database, by
        its name; False where there is none. :param let_go: closes the connections of rollback tests that nobody
        holds.
    """

    def __init__(
        self, server: Callable[[], Server | None], renew: Callable[[str], bool], let_go: Callable[[], None]
    ) -> None:
        self._server = server
        self._renew = renew
        self._let_go = let_go
        self._witness: Witness | None = None
        self._one_at_a_time = threading.Lock()

    def horizon(self) -> Horizon:
        """What had been committed up to now, for who has no session of ours to ask.

        :raises ServerError: it cannot be asked.
        """
        server = self._server()
        assert server is not None, "it has a database there"
        with self._one_at_a_time:
            return self._asked(server).horizon()

    @contextmanager
    def excused(self) -> Iterator[None]:
        """What is committed inside is held against no test: whoever sets something up for several of them."""
        server = self._server()
        before: Horizon | None = None
        with suppress(ServerError, ImportError):  # then the test is judged by all of it
            before = self.horizon() if server is not None else None
        try:
            yield
        finally:
            if before is not None and server is not None:
                with suppress(ServerError, ImportError), self._one_at_a_time:
                    self._asked(server).excuse(before)

    def judge(self, window: Window, database: str | None = None) -> Verdict:
        """What of it was in the database of the tests. That is as it was before, if it can be.

        :param database: another one, by name; if it has to be replaced, that is left to the caller.
        """
        server = self._server()
        if server is None:
            return Verdict("the server was given back before the test ended")
        with self._one_at_a_time:
            try:
                name = database or server.dsn.database or ""
                verdict = self._asked(server).judge(window, name)
            except ServerError as error:
                return Verdict(error.what)
            except ImportError:
                return Verdict(_WITHOUT_PSYCOPG)
            escape = verdict.escape
            if escape is None or escape.put_back is not PutBack.STAYS:
                return verdict
            if database is not None:
                return Verdict(escape=escape._replace(put_back=PutBack.LATER, why=None))
            return Verdict(escape=self._replaced(name, escape))

    def _asked(self, server: Server) -> Witness:
        if self._witness is None:
            from dataflow.testing.proof.witness import Witness

            self._witness = Witness(server.admin_dsn)
        return self._witness

    def _replaced(self, name: str, escape: Escape) -> Escape:
        self._let_go()
        try:
            replaced = self._renew(name)
        except ServerError as error:
            return escape._replace(why=error.what)
        if replaced:
            return escape._replace(put_back=PutBack.REPLACED, why=None)
        why = escape.why or "older rows or the schema were changed, and without a schema of ours there is no copy"
        return escape._replace(why=why)

    def close(self) -> None:
        """Idempotent."""
        witness, self._witness = self._witness, None
        if witness is not None:
            witness.close()

    def forget(self) -> None:
        """In a forked child: the session is that of the parent."""
        self._one_at_a_time = threading.Lock()
        witness, self._witness = self._witness, None
        if witness is not None:
            witness.forget()
