"""Plugin of a library's own test run: what became of each test, in lines of JSON, as soon as it is known."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_WORST = ("passed", "skipped", "failed")


class Outcomes:
    """:param path: of the file; what a run that was killed has written so far stays in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._of_test: dict[str, tuple[str, str]] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self._of_test.get(report.nodeid, ("passed", ""))
        now = report.outcome, _why(report)
        self._of_test[report.nodeid] = max(before, now, key=lambda each: _WORST.index(each[0]))
        if report.when == "teardown":
            outcome, why = self._of_test.pop(report.nodeid)
            self._write({"test": report.nodeid, "outcome": outcome, "why": why})

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write({"test": report.nodeid, "outcome": "failed", "why": _last_line(str(report.longrepr))})

    def _write(self, line: dict[str, str]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _why(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return f"expected to fail: {report.wasxfail}"
    if report.skipped:
        return str(report.longrepr[-1]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not report.failed:
        return ""
    return _last_line(str(getattr(report.longrepr, "reprcrash", None) or report.longrepr))


def _last_line(text: str) -> str:
    lines: Iterator[str] = (line.strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if line), "")[:300]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Outcomes(Path(os.environ["COMPAT_OUTCOMES"])), "compat-outcomes")
