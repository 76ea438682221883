"""One pytest run: which test or fixture is at work, what happened, what leaked."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import Any

import pytest

from dataflow.testing.errors import (
    ConnectionLeak,
    DatabaseNotClean,
    NoEventLoop,
    PoolExhausted,
    ServerError,
    SettingsError,
    TDDError,
    TDDModeDisabled,
    TransactionEnded,
)
from dataflow.testing.events import ConnectionLeaked, ContextReleased, Event, ServerChosen
from dataflow.testing.plugin.loop_scope import check_has_loop, follow_test_loop
from dataflow.testing.plugin.memory import memory_watched
from dataflow.testing.plugin.warnings import ConnectionLeakWarning, TDDWarning
from dataflow.testing.report.model import Report
from dataflow.testing.report.terminal import leak_text, lines
from dataflow.testing.runtime import Runtime

# Their messages say all; a traceback through this library would only bury them.
_TOLD_WITHOUT_TRACEBACK = (ServerError, SettingsError, PoolExhausted, NoEventLoop, DatabaseNotClean)


class Run:
    """Plugin object with the hooks of a run; collects events for the report."""

    def __init__(self, config: pytest.Config, runtime: Runtime) -> None:
        self.config = config
        self.runtime = runtime
        self.report = Report()
        self._item: pytest.Item | None = None
        self._wide_fixtures: list[str] = []
        runtime.listener = self.listen
        runtime.who = self.who

    def listen(self, event: Event) -> None:
        if isinstance(event, ServerChosen):
            self._note_settings()
        self.report.add(event)
        if isinstance(event, ContextReleased) and event.problem is not None and event.harmless:
            warnings.warn(TDDWarning(event.problem), stacklevel=2)

    def _note_settings(self) -> None:
        settings = self.runtime.settings
        self.report.slow_ms = settings.slow
        self.report.settings = tuple(
            settings.explain(name) for name, origin in settings.origins.items() if origin != "default"
        )

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

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        wide = fixturedef.scope != "function"
        if wide:
            self._wide_fixtures.append(f"fixture {fixturedef.argname}, scope {fixturedef.scope}")
        follow_test_loop(fixturedef, request)
        try:
            return (yield)
        except TDDModeDisabled as error:
            pytest.skip(str(error))
        except _TOLD_WITHOUT_TRACEBACK as error:
            raise _told(error) from None
        finally:
            if wide:
                self._wide_fixtures.pop()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        try:
            check_has_loop(item)
        except NoEventLoop as error:
            raise _told(error) from None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._item = item
        try:
            return (yield)
        finally:
            self._item = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        threshold_mb = self.runtime.settings.memory_threshold if self.runtime.started else 0.0
        if not threshold_mb or "memory_monitor" in getattr(item, "fixturenames", ()):
            return (yield)
        with memory_watched(item.nodeid, threshold_mb):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        try:
            yield
        except TransactionEnded as error:
            raise _told(error) from None
        finally:
            leaks = self._take_back_leaks(item) if self.runtime.started else []
        if leaks:
            self._tell(leaks)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.report.used:
            return
        terminalreporter.section("DataFlow TDD")
        for line in lines(self.report.summary()):
            terminalreporter.write_line(line)

    def _take_back_leaks(self, item: pytest.Item) -> list[ConnectionLeaked]:
        """Connections that this test took and did not give back; they are closed here."""
        manager = self.runtime.manager
        leaked = [context for context in manager.active_contexts if context.owner == item.nodeid]
        events = [
            ConnectionLeaked(item.nodeid, context.holder, context.age_s, context.last_statement)
            for context in leaked
        ]
        for context in leaked:
            manager.discard(context)
        return events

    def _tell(self, leaks: list[ConnectionLeaked]) -> None:
        for leak in leaks:
            self.listen(leak)
        action = self.runtime.settings.leaks
        if action == "ignore":
            return
        text = leak_text(leaks)
        if action == "warn":
            warnings.warn(ConnectionLeakWarning(text), stacklevel=2)
            return
        raise ConnectionLeak(
            text,
            cause="get_test_connection or open_connection without its clean-up",
            remedy="call cleanup_test_connection(context) in a finally block, or use the fixture "
            "managed_connection; they were closed now",
            option="DATAFLOW_TDD_LEAKS, --tdd-leaks=error|warn|ignore",
        )


def _told(error: TDDError) -> BaseException:
    return pytest.fail.Exception(f"{type(error).__name__}: {error}", pytrace=False)
