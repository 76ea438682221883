"""Rollback tests with psycopg: one session of the server, which each test has in turn. No event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from dataflow.testing.errors import ContextError, StaleContext
from dataflow.testing.events import ContextReleased, Emit
from dataflow.testing.isolation.outcomes import (
    NOT_ENDED,
    Finished,
    commit_escaped,
    escapes,
    slowest_of,
)
from dataflow.testing.isolation.questions import Questions
from dataflow.testing.isolation.refusals import not_clean, transaction_ended
from dataflow.testing.missing import importing
from dataflow.testing.proof.escape import Verdict
from dataflow.testing.proof.horizon import Horizon, Window

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

    from dataflow.testing.dsn import Dsn
    from dataflow.testing.isolation.ending import Judge
    from dataflow.testing.isolation.line import Line
    from dataflow.testing.isolation.psycopg_pool import SharedPool
    from dataflow.testing.lease.lease import DatabaseLease
    from dataflow.testing.sandbox.recording import Recorder, Statements
    from dataflow.testing.settings import Settings

_GUARD = "dataflow_tdd_test"
_BEGIN = f"BEGIN; SAVEPOINT {_GUARD}"
_END = f"ROLLBACK TO SAVEPOINT {_GUARD}; ROLLBACK"


class PsycopgContext:
    """What a test with psycopg holds.

    :ivar test_id: whose it is. :ivar database: the test's own, if it is isolated by that and not by a rollback.
    """

    def __init__(
        self,
        test_id: str,
        opens: Callable[..., psycopg.Connection],
        database: DatabaseLease | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.test_id = test_id
        self.recorder = recorder
        self.database = database
        self._opens = opens
        self._opened: list[psycopg.Connection] = []
        self._connection: psycopg.Connection | None = None
        self._pool: SharedPool | None = None
        self._threads = threading.Lock()
        self._over = False

    @property
    def connection(self) -> psycopg.Connection:
        """As `psycopg.connect` gives it: it begins a transaction by itself.

        :raises StaleContext: the test is over.
        """
        if self._connection is None or self._over:
            self._connection = self.connect()
        return self._connection

    @property
    def statements(self) -> Statements:
        """What was sent on the connections of the test, also when that is over.

        :raises ContextError: the test commits; what it sends goes to the server by itself.
        """
        if self.recorder is None:
            raise ContextError(
                f"context of {self.test_id}: what it sends is not recorded",
                cause="it is isolated by a database, whose connections are plain ones",
                remedy="look at the statements of a test that is rolled back, or of tdd_test_context",
            )
        return self.recorder.statements

    def connect(self, conninfo: str = "", **arguments: Any) -> psycopg.Connection:
        """Another connection, in the same transaction of the test; closed with the test at the latest.

        For code that wants one of its own, such as SQLAlchemy's ``create_engine("postgresql+psycopg://",
        creator=context.connect)``. Connections of one test take turns, also those of several threads.

        :param arguments: for `psycopg.connect`, besides the address: ``autocommit``, ``row_factory`` …
        :raises StaleContext: the test is over.
        """
        self._check_is_on()
        connection = self._opens(conninfo, **arguments)
        with self._threads:
            if not self._over:
                self._opened.append(connection)
                return connection
        connection.close()  # another thread has ended the test meanwhile
        raise self._is_over()

    @property
    def psycopg_pool(self) -> ConnectionPool[Any]:
        """A pool of psycopg_pool, whose connections are as those of `connect`; closed with the test.

        Its ``kwargs`` are arguments for each of them.

        :raises StaleContext: the test is over.
        """
        self._check_is_on()
        with self._threads:
            if self._pool is None:
                from dataflow.testing.sandbox.client import TURN_LIMIT_S

                with importing("psycopg_pool", extra="psycopg"):
                    from dataflow.testing.isolation.psycopg_pool import SharedPool

                self._pool = SharedPool(self.connect, TURN_LIMIT_S)
            return self._pool

    def _check_is_on(self) -> None:
        if self._over:
            raise self._is_over()

    def _is_over(self) -> StaleContext:
        return StaleContext(
            f"context of {self.test_id}: the test is over",
            cause="it was kept in a global, a wider fixture or a thread that outlived the test",
            remedy="take tdd_psycopg in the test or fixture that needs the connection; join your threads",
        )

    def end(self) -> None:
        """Close what is open, also where a thread uses it. Idempotent."""
        with self._threads:
            self._over = True
        if self._pool is not None:
            self._pool.close()
        for connection in self._opened:
            if not connection.closed:
                connection.close()
        self._opened.clear()


class PsycopgTests:
    """Begins and ends them.

    :param dsn: where rollback tests connect to.
    :ivar in_test: the line is in the transaction of a test, for all that is known.
    """

    def __init__(
        self,
        dsn: Callable[[], Dsn],
        settings: Callable[[], Settings],
        emit: Emit,
        judge: Judge,
        new_recorder: Callable[[], Recorder],
    ) -> None:
        self._dsn = dsn
        self._settings = settings
        self._emit = emit
        self._judge = judge
        self._new_recorder = new_recorder
        self._line: Line | None = None
        self._questions = Questions()
        self.in_test = False
        self._horizon = Horizon("", "", 0)
        self._began = self._since = 0.0
        self._opened = False
        self._polluted: tuple[Dsn, str] | None = None

    def begin(self, test_id: str) -> PsycopgContext:
        """A context in a transaction, which `end` rolls back.

        :raises MissingLibrary: psycopg is not installed. :raises ServerError: the server cannot be used.
        :raises DatabaseNotClean: an earlier test may have left rows.
        """
        with importing("psycopg"):
            from dataflow.testing.isolation.in_step import connect

        started = perf_counter()
        dsn = self._dsn()
        if self._polluted is not None and self._polluted[0] == dsn:
            raise not_clean(self._polluted[1])
        line = self._begun(dsn)
        self._since = monotonic()
        self._began = perf_counter() - started
        recorder = line.session.recorder = self._new_recorder()
        return PsycopgContext(test_id, partial(connect, line), recorder=recorder)

    def _begun(self, dsn: Dsn) -> Line:
        import psycopg

        used = self._line
        # Ctrl-C, or a limit of its time, may have come in the way of the end of a test: nobody goes on in that.
        if used is not None and used.dsn == dsn and not self.in_test:
            try:
                return self._enter(used)
            except (psycopg.Error, OSError):  # the server ended it between two tests
                self.close()
        from dataflow.testing.isolation.line import Line

        self.close()
        self._questions = Questions()
        self._line = Line(dsn, self._settings().timeout)
        self._opened = True
        return self._enter(self._line)

    def _enter(self, line: Line) -> Line:
        self.in_test = True
        begun = line.ask_all(self._questions.begin(_BEGIN))
        line.session.enter(deferred=begun.deferred)
        self._horizon = begun.horizon
        return line

    def end(self, context: PsycopgContext) -> None:
        """Undo all that the test did.

        :raises TransactionEnded: its transaction is not the one that was begun.
        :raises CommitEscaped: something was committed in its database meanwhile, and that is an error.
        """
        import psycopg

        started = perf_counter()
        line, problem, verdict = self._line, None, Verdict(NOT_ENDED)
        try:
            verdict = self._judged(line, self._rolled_back(context, line))
        except (psycopg.errors.InvalidSavepointSpecification, psycopg.errors.NoActiveSqlTransaction) as error:
            ended = transaction_ended(context.test_id)
            problem = ended.what
            verdict = self._judged(line, None)
            if not verdict.restored:
                self._polluted = self._dsn(), problem
            self.close()
            raise ended from error
        finally:
            self._tell(context, Finished(perf_counter() - started, problem, verdict.restored, verdict.unproven))
            escape = escapes(context.test_id, verdict.escape) if verdict.escape is not None else None
            if escape is not None:
                self._emit(escape)
        if escape is not None and self._settings().escapes == "error":
            raise commit_escaped(escape)

    def _rolled_back(self, context: PsycopgContext, line: Line | None) -> tuple[int, ...] | None:
        """Numbers of transactions that were committed meanwhile, on the whole server; None: not known."""
        import psycopg

        try:
            context.end()
            if line is None:
                return None
            line.settle()
            line.session.recorder = None
            committed = self._asked_at_end(line)
            self.in_test = False
            return committed
        except (psycopg.errors.InvalidSavepointSpecification, psycopg.errors.NoActiveSqlTransaction):
            raise
        except (psycopg.Error, OSError):  # the server has rolled back what it ended
            self.close()
            return None

    def _asked_at_end(self, line: Line) -> tuple[int, ...]:
        questions, end = self._questions, _END
        if line.session.prepares:
            questions.lost()
            end = f"{_END}; DEALLOCATE ALL"
        committed = line.ask_all(questions.end(end, self._horizon, used=line.session.used))
        line.session.leave()
        return committed

    def _judged(self, line: Line | None, committed: tuple[int, ...] | None) -> Verdict:
        if committed == ():
            return Verdict()
        own = (line.backend_pid,) if line is not None else ()
        return self._judge(Window(self._horizon, committed, self._since, own))

    def _tell(self, context: PsycopgContext, finished: Finished) -> None:
        recorder = context.recorder
        data_s = recorder.busy_s if recorder is not None else 0.0
        self._emit(
            ContextReleased(
                test_id=context.test_id,
                setup_ms=self._began * 1e3,
                schema_ms=0.0,
                data_ms=data_s * 1e3,
                teardown_ms=finished.teardown_s * 1e3,
                statements=0,
                problem=finished.problem,
                harmless=finished.harmless,
                isolated=finished.problem is None,
                opened=self._opened,
                unproven=finished.unproven,
                slowest=slowest_of(recorder, data_s),
            )
        )
        self._opened = False

    def forget(self) -> None:
        """In a forked child: the session is that of the parent."""
        self._line = None

    def close(self) -> None:
        """Let go of the session. Idempotent."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
