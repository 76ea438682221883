"""The composition root: what belongs together in one process. Works without pytest.

`runtime()` is the one piece of module state of this library, because the guide's functions
(`get_database_manager()` …) have no other place to find what they give out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from dataflow.testing.errors import TDDModeDisabled

if TYPE_CHECKING:
    from dataflow.testing.databases.access import Access
    from dataflow.testing.dsn import Dsn
    from dataflow.testing.events import Emit, Event
    from dataflow.testing.isolation.context import TDDTestContext
    from dataflow.testing.isolation.manager import TDDDatabaseManager
    from dataflow.testing.isolation.psycopg_tests import PsycopgTests
    from dataflow.testing.isolation.rollback import TDDTransactionManager
    from dataflow.testing.isolation.server_protocol import Server
    from dataflow.testing.lease.lease import DatabaseLease
    from dataflow.testing.sandbox.recording import Recorder
    from dataflow.testing.settings import Settings, Sources
    from dataflow.testing.template.source import SchemaSource


class Runtime:
    """Settings, the managers and the listener of one process.

    Nothing is read or opened before something needs it: the environment may be set up to that moment. The
    driver is imported with the first manager.

    :param command_line, ini: options that somebody else has parsed, by the names of the settings.
    :param listener: is told each event.
    """

    def __init__(
        self,
        *,
        command_line: Mapping[str, str] | None = None,
        ini: Mapping[str, str] | None = None,
        listener: Emit = lambda _event: None,
    ) -> None:
        self._command_line = dict(command_line or {})
        self._ini = dict(ini or {})
        self.listener = listener
        self.who: Callable[[], str | None] = lambda: None  # what runs now: a test, or a wider fixture
        self._used = False
        self._pid = os.getpid()
        self._making = threading.RLock()  # the first ones to need something may come in several threads
        self._settings: Settings | None = None
        self._manager: TDDDatabaseManager | None = None
        self._transactions: TDDTransactionManager | None = None
        self._psycopg_tests: PsycopgTests | None = None
        self.isolation = "rollback"  # of the test that runs now
        self.phase = ""  # of it
        self.recorders: list[Recorder] | None = None  # what its connections send, if somebody wants to know
        self.database_of_test: DatabaseLease | None = None  # for its context, if that commits

    @property
    def sources(self) -> Sources:
        from dataflow.testing.settings import Sources

        return Sources.of_process(self._command_line, self._ini)

    @property
    def settings(self) -> Settings:
        """The settings in force, fixed with the choice of a server; `close` lets go of them.

        Until then they are read each time: the guide sets variables at run time, after plugins were loaded.
        """
        if self._settings is None or not self.started:
            from dataflow.testing.settings import resolve

            self._settings = resolve(self.sources)
        return self._settings

    @property
    def started(self) -> bool:
        """Whether a server was chosen; until then settings may still change."""
        return bool(self._manager and self._manager.server)

    def is_tdd_mode(self) -> bool:
        """TDD mode as it is set now; when nobody set it, whether something of it was used."""
        from dataflow.testing.settings import given_mode

        mode = given_mode(self.sources)
        return self._used if mode is None else mode

    def is_tdd_mode_off(self) -> bool:
        """Whether somebody switched TDD mode off explicitly."""
        from dataflow.testing.settings import given_mode

        return given_mode(self.sources) is False

    def use(self) -> None:
        """Note that TDD is used, which turns an unset mode on.

        :raises TDDModeDisabled: it was switched off explicitly.
        """
        if self._used:
            return
        if self.is_tdd_mode_off():
            raise TDDModeDisabled(
                "TDD mode is switched off",
                cause="DATAFLOW_TDD_MODE or tdd_mode is set to false",
                remedy="set it to true, or unset it: it turns on when a TDD fixture is used",
                option="DATAFLOW_TDD_MODE, --tdd-mode",
            )
        self._used = True

    @property
    def transactions(self) -> TDDTransactionManager:
        with self._making:
            if self._transactions is None:
                from dataflow.testing.isolation.rollback import TDDTransactionManager

                self._transactions = TDDTransactionManager()
            return self._transactions

    @cached_property
    def contexts(self) -> Any:
        """The module of the contexts; imported with the first of them."""
        from dataflow.testing.isolation import context

        return context

    @cached_property
    def databases(self) -> Access:
        """The databases for tests that really commit, and the schema that all tests find."""
        from dataflow.testing.databases.access import Access

        return Access(lambda: self.settings, self._emit, self._let_go)

    @property
    def psycopg_tests(self) -> PsycopgTests:
        """Rollback tests with psycopg; nothing of it is loaded before."""
        if self._psycopg_tests is None:
            from dataflow.testing.isolation.psycopg_tests import PsycopgTests

            told = self._emit, self.databases.judge, self._new_recorder
            self._psycopg_tests = PsycopgTests(lambda: self.server().dsn, lambda: self.settings, *told)
        return self._psycopg_tests

    @property
    def manager(self) -> TDDDatabaseManager:
        if self._manager is None:
            with self._making:
                return self._make_manager()
        return self._manager

    def _make_manager(self) -> TDDDatabaseManager:
        if self._manager is None:
            from dataflow.testing.isolation.manager import TDDDatabaseManager

            self._manager = TDDDatabaseManager(
                lambda: self.settings,
                self._choose_server,
                self.transactions,
                judge=self.databases.judge,
                new_recorder=self._new_recorder,
                emit=self._emit,
                who=self._who,
            )
        return self._manager

    async def begin_test(
        self,
        test_id: str | None = None,
        isolation_level: str = "READ COMMITTED",
        timeout: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> TDDTestContext:
        """A context inside its own transaction; `end_test` rolls it back. It becomes the current one."""
        self.use()
        contexts = self.contexts
        context = contexts.TDDTestContext(test_id or "", isolation_level, timeout, metadata=metadata or {})
        await self.manager.begin(context)
        contexts.enter(context)
        return context  # type: ignore[no-any-return]

    async def begin_committing_test(self, test_id: str | None, database: DatabaseLease) -> TDDTestContext:
        """A context whose connection really commits, in the database of the test."""
        from dataflow.testing.isolation.committing import connect_committing

        self.use()
        contexts = self.contexts
        context = contexts.TDDTestContext(test_id or "")
        context.database = database
        await connect_committing(context, self.settings, self._new_recorder())
        contexts.enter(context)
        return context  # type: ignore[no-any-return]

    async def end_test(self, context: TDDTestContext) -> None:
        """Roll the test back and give its connection back.

        :raises TransactionEnded: the isolation of the test did not hold.
        """
        self.contexts.leave(context)
        if context.database is not None:
            from dataflow.testing.isolation.committing import disconnect_committing

            self._emit(await disconnect_committing(context))
            return
        await self.manager.cleanup_test_connection(context)

    @asynccontextmanager
    async def test_context(self, *args: Any, **kwargs: Any) -> AsyncIterator[TDDTestContext]:
        """`begin_test` and `end_test` as a context manager."""
        context = await self.begin_test(*args, **kwargs)
        try:
            yield context
        finally:
            await self.end_test(context)

    def lend_database(
        self, test_id: str, *, source: SchemaSource | None = None, fresh: bool = False
    ) -> DatabaseLease:
        """A database with the tables and seed rows of a schema, for one test; `take_back_database` ends that.

        :param source: None for the schema that rollback tests have as well.
        :param fresh: one that no test has used before, and none will again.
        :raises SchemaFailed: the schema could not be made. :raises ServerError: the server does not allow it.
        """
        self.use()
        databases = self.databases.on(self.server())
        return databases.lend(source or self.databases.source, test_id, fresh=fresh)

    @property
    def rolls_back(self) -> bool:
        """A test that will be rolled back has begun."""
        with_psycopg = self._psycopg_tests is not None and self._psycopg_tests.in_test
        return with_psycopg or (self._manager is not None and self._manager.rolls_back)

    def make_tables(self) -> None:
        """Choose the server, and make what rollback tests find there, which the first of them would do.

        :raises SchemaFailed: the schema could not be made. :raises ServerError: the server does not allow it.
        """
        self.use()
        _ = self.server().dsn

    def take_back_database(self, lease: DatabaseLease) -> None:
        """End what the test left in its database, and make that as it was. Idempotent."""
        self.databases.take_back(lease)

    def database_url(self) -> str:
        """URL of the test database, with its password, which its `repr` does not show; for code in no event loop.

        :raises ServerError: no server can be used.
        """
        from dataflow.testing.dsn import SecretUrl

        return SecretUrl(self.server().dsn.url())

    def server(self) -> Server:
        """The server in use; chosen now, if none was before. For code that runs in no event loop.

        :raises ServerError: none can be used.
        """
        return self.manager.server_without_loop()

    async def close(self) -> None:
        """Give everything back. The runtime can be used again, with settings read anew."""
        self._close_sessions()
        if self._manager is not None:
            await self._manager.close()
        self._settings = None

    def release(self) -> None:
        """Give everything back without an event loop; for the end of a process."""
        self._close_sessions()
        if self._manager is not None:
            self._manager.release_server()
        self._settings = None

    def _close_sessions(self) -> None:
        self._forget_parent()
        self._close_psycopg()

    def _close_psycopg(self) -> None:
        if self._psycopg_tests is not None:
            self._psycopg_tests.close()

    def _forget_parent(self) -> None:
        """In a forked child: connections and server are those of the parent, and not to be touched."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._manager = self._transactions = self._settings = None
            if self._psycopg_tests is not None:
                self._psycopg_tests.forget()
            self.databases.forget()

    def _new_recorder(self) -> Recorder:
        from dataflow.testing.isolation.housekeeping import is_housekeeping
        from dataflow.testing.sandbox.recording import Recorder

        recorder = Recorder(lambda: self.phase, is_housekeeping)
        if self.recorders is not None:
            self.recorders.append(recorder)
        return recorder

    def _let_go(self) -> None:
        """Close the connections of rollback tests that nobody holds."""
        self._close_psycopg()
        if self._manager is not None:
            self._manager.let_go_idle()

    def _emit(self, event: Event) -> None:
        self.listener(event)

    def _who(self) -> str | None:
        return self.who()

    async def _choose_server(self, settings: Settings, dsn: Dsn | None) -> Server:
        from dataflow.testing.isolation.connecting import try_login
        from dataflow.testing.server.choice import choose, this_process

        login = partial(try_login, timeout=settings.pool_timeout)
        return self.databases.serve(await choose(settings, dsn, try_login=login, what=this_process()))


_runtime: Runtime | None = None
_making = threading.Lock()


def runtime() -> Runtime:
    """The runtime of this process; made at the first call."""
    global _runtime
    if _runtime is None:
        with _making:
            if _runtime is None:
                _runtime = Runtime()
    return _runtime


def install(new: Runtime | None) -> Runtime | None:
    """Put another runtime in place (None: a fresh one at the next call); returns the one before."""
    global _runtime
    before, _runtime = _runtime, new
    return before
