"""What a test sent to the server: shown when it fails, and counted against what its marker allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dataflow.testing.plugin.isolation import most_statements

if TYPE_CHECKING:
    from dataflow.testing.sandbox.recording import Recorder


def show_statements(report: pytest.TestReport, recorders: list[Recorder]) -> None:
    """A section of its own in the report of a failure."""
    from dataflow.testing.report.statements import TITLE, section

    if lines := section(recorders):
        report.sections.append((TITLE, "\n".join(lines)))


def check_budget(item: pytest.Item, recorders: list[Recorder]) -> None:
    """
    :raises Failed: the body of the test sent more statements than it may.
    """
    most = most_statements(item)
    if most is None:
        return
    if not recorders:
        raise pytest.fail.Exception(
            f"{item.nodeid}: max_statements counts what is sent on connections of the test that are recorded, "
            "and it has none; take tdd_test_context, or tdd_psycopg in a test that is rolled back",
            pytrace=False,
        )
    from dataflow.testing.report.statements import executed, over_budget

    text = over_budget(item.nodeid, executed(recorders), most)
    if text is not None:
        raise pytest.fail.Exception(text, pytrace=False)
