"""One pytest run: which test or fixture is at work, what happened, what leaked.

Its hooks run for every test of every suite that has the plugin installed, so they do little, and load the
report only when there is something to report.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from dataflow.testing.errors import ConnectionLeak, NoEventLoop, SettingsError, TDDError, TDDModeDisabled
from dataflow.testing.plugin.isolation import MARKER, ROLLBACK, isolation_of, wants_database
from dataflow.testing.plugin.loop_scope import check_has_loop, following_test_loop, is_ours
from dataflow.testing.plugin.schema import Schemas, wants_tables
from dataflow.testing.plugin.telling import TOLD_WITHOUT_TRACEBACK, skipped, told
from dataflow.testing.plugin.warnings import ConnectionLeakWarning, TDDWarning

if TYPE_CHECKING:
    from dataflow.testing.events import ConnectionLeaked, Event
    from dataflow.testing.plugin.memory import MemoryWatch
    from dataflow.testing.report.model import Report
    from dataflow.testing.runtime import Runtime
    from dataflow.testing.sandbox.recording import Recorder


class Run:
    """Plugin object with the hooks of a run; collects events for the report."""

    def __init__(self, config: pytest.Config, runtime: Runtime) -> None:
        self.config = config
        self.runtime = runtime
        self._item: pytest.Item | None = None
        self._failed = False  # the test that runs now
        self._wide_fixtures: list[str] = []
        self._memory: MemoryWatch | None = None
        self._schemas = Schemas(runtime)
        self._recorders: list[Recorder] = []
        runtime.recorders = self._recorders
        runtime.listener = self.listen
        runtime.who = self.who

    @cached_property
    def report(self) -> Report:
        from dataflow.testing.report.model import Report

        return Report()

    @property
    def has_report(self) -> bool:
        return "report" in self.__dict__

    def listen(self, event: Event) -> None:
        if not self.has_report:
            self._note_settings()
        self.report.add(event)
        if getattr(event, "problem", None) and event.harmless:  # type: ignore[union-attr]
            warnings.warn(TDDWarning(event.problem), stacklevel=2)  # type: ignore[union-attr]
        from dataflow.testing.events import CommitEscapes, DatabaseReturned

        if isinstance(event, DatabaseReturned):
            from dataflow.testing.plugin.returned import tell_returned

            tell_returned(event, self._item, self.runtime.settings, failed=self._failed)
        elif isinstance(event, CommitEscapes) and self.runtime.settings.escapes == "warn":
            from dataflow.testing.plugin.returned import warn
            from dataflow.testing.plugin.warnings import EscapeWarning

            warn(EscapeWarning(f"{event}\n  way out: {event.remedy}"), self._item)

    def test_id(self) -> str | None:
        """The test that is set up, runs, or is torn down now."""
        return self._item.nodeid if self._item is not None else None

    def who(self) -> str | None:
        """What is at work now: a fixture wider than a test, or the test."""
        if self._wide_fixtures:
            return self._wide_fixtures[-1]
        return self._item.nodeid if self._item is not None else None

    def pytest_report_header(self, config: pytest.Config) -> list[str]:
        if config.get_verbosity() < 1:
            return []
        try:
            settings = self.runtime.settings
        except SettingsError as error:
            return [f"dataflow-tdd: {error}"]
        return [f"dataflow-tdd: {line}" for line in str(settings).splitlines()]

    def pytest_report_collectionfinish(self, config: pytest.Config, items: list[pytest.Item]) -> list[str]:
        """Tests with databases of their own: how these are put back. With xdist only the summary tells."""
        if config.option.collectonly or config.get_verbosity() < 0 or not any(map(wants_database, items)):
            return []
        try:
            self.runtime.use()
            strategy = self.runtime.databases.on(self.runtime.server()).strategy()
            return [f"dataflow-tdd: databases are {strategy}"]
        except TDDError as error:  # the tests will say more
            return [f"dataflow-tdd: no databases: {error.what}"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._item, self._failed = item, False
        self._recorders.clear()
        self.runtime.phase = "setup"
        self.runtime.isolation = isolation_of(item, ROLLBACK)
        try:
            check_has_loop(item)
        except NoEventLoop as error:
            raise told(error) from None
        if self.runtime.started:
            self._watch_memory(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        wide = fixturedef.scope != "function"
        if wide:
            self._wide_fixtures.append(f"fixture {fixturedef.argname}, scope {fixturedef.scope}")
        try:
            with ExitStack() as prepared:
                if not wide and (is_ours(fixturedef) or wants_tables(fixturedef)):
                    self._prepare(fixturedef, request, prepared)
                if wide and self.runtime.rolls_back:
                    # A test asked for it by `getfixturevalue`: what it commits is for others as well.
                    prepared.enter_context(self.runtime.databases.excused())
                return (yield)
        except TDDModeDisabled as error:
            raise skipped(error) from None
        except TOLD_WITHOUT_TRACEBACK as error:
            raise told(error) from None
        finally:
            if wide:
                self._wide_fixtures.pop()

    def _prepare(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest, prepared: ExitStack
    ) -> None:
        try:
            if is_ours(fixturedef):
                prepared.enter_context(following_test_loop(fixturedef, request))
            self._schemas.prepare(fixturedef.argname, request)
        except BaseException as error:
            # As pytest notes an error of the fixture itself. Or it takes the fixture for one never set up,
            # does not finish it, and the next test that asks for it fails with an assertion of pytest's.
            key = fixturedef.cache_key(request)  # type: ignore[arg-type]
            fixturedef.cached_result = (None, key, (error, error.__traceback__))
            raise

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.runtime.phase = "call"
        result = yield
        if self._recorders or item.get_closest_marker(MARKER) is not None:
            from dataflow.testing.plugin.sent import check_budget

            check_budget(item, self._recorders)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        if call.excinfo is not None:
            self._failed = True
        report = yield
        if report.failed and self._recorders:
            from dataflow.testing.plugin.sent import show_statements

            show_statements(report, self._recorders)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        failed = True
        self.runtime.phase = "teardown"
        try:
            yield
            failed = False
        except TOLD_WITHOUT_TRACEBACK as error:
            raise told(error) from None
        finally:
            self._item = None
            if self.runtime.started:
                self._look_for_leaks(item, failed=failed)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.has_report or not self.report.used:
            return
        from dataflow.testing.report.terminal import lines

        terminalreporter.section("DataFlow TDD")
        for line in lines(self.report.summary()):
            terminalreporter.write_line(line)

    def _note_settings(self) -> None:
        settings = self.runtime.settings
        self.report.slow_ms = settings.slow
        self.report.settings = settings.by_origin()

    def _watch_memory(self, item: pytest.Item) -> None:
        threshold_mb = self.runtime.settings.memory_threshold
        if threshold_mb and "memory_monitor" not in getattr(item, "fixturenames", ()):
            from dataflow.testing.plugin.memory import MemoryWatch

            self._memory = MemoryWatch(item.nodeid, threshold_mb)

    def _look_for_leaks(self, item: pytest.Item, *, failed: bool) -> None:
        """:param failed: the test's own clean-up failed; what else is wrong must not hide that."""
        watch, self._memory = self._memory, None
        if watch is not None:
            watch.end()
        manager = self.runtime.manager
        if any(context.owner == item.nodeid for context in manager.active_contexts):
            self._tell(self._take_back_leaks(item), quietly=failed)

    def _take_back_leaks(self, item: pytest.Item) -> list[ConnectionLeaked]:
        """Connections that this test took and did not give back; they are closed here."""
        from dataflow.testing.events import ConnectionLeaked

        manager = self.runtime.manager
        leaked = [context for context in manager.active_contexts if context.owner == item.nodeid]
        events = [
            ConnectionLeaked(item.nodeid, context.holder, context.held_s, context.last_statement)
            for context in leaked
        ]
        for context in leaked:
            manager.discard(context)
        return events

    def _tell(self, leaks: list[ConnectionLeaked], *, quietly: bool) -> None:
        from dataflow.testing.report.terminal import leak_text

        for leak in leaks:
            self.listen(leak)
        action = self.runtime.settings.leaks
        if action == "warn" or (action == "error" and quietly):
            warnings.warn(ConnectionLeakWarning(leak_text(leaks)), stacklevel=2)
        elif action == "error":
            raise told(
                ConnectionLeak(
                    leak_text(leaks),
                    cause="get_test_connection or open_connection without its clean-up",
                    remedy="call cleanup_test_connection(context) in a finally block, or use the fixture "
                    "managed_connection; they were closed now",
                    option="DATAFLOW_TDD_LEAKS, --tdd-leaks=error|warn|ignore",
                )
            )
