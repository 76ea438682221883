"""pytest-xdist: workers send what happened to the controller, which makes the one report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dataflow.testing.plugin.run import Run

_KEY = "dataflow_tdd"


class Merging:
    """Hooks for both sides; a worker has `workeroutput`, the controller hears `pytest_testnodedown`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None and self._run.has_report:
            output[_KEY] = self._run.report.to_plain()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        sent = getattr(node, "workeroutput", {}).get(_KEY)
        if sent is not None:
            self._run.report.add_plain(sent)
        elif error is not None:
            self._run.report.lost_worker(node.gateway.id)
