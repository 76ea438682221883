"""What is told when a test gives its database back: what it left, what it changed outside, what was done."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from dataflow.testing.errors import ConnectionLeak
from dataflow.testing.plugin.telling import told
from dataflow.testing.plugin.warnings import ConnectionLeakWarning, OutsideWarning

if TYPE_CHECKING:
    import pytest

    from dataflow.testing.events import DatabaseReturned
    from dataflow.testing.settings import Settings


def tell_returned(event: DatabaseReturned, item: pytest.Item | None, settings: Settings) -> None:
    """Warn or fail, as the settings say.

    :raises Failed: sessions were left behind, and that is an error.
    """
    if event.explanation and item is not None:
        item.add_report_section("teardown", "dataflow-tdd explain", "\n".join(event.explanation))
    if event.outside:
        changes = ", ".join(event.outside)
        text = f"{event.test_id} changed something outside of its database, which stays: {changes}"
        warnings.warn(OutsideWarning(text), stacklevel=2)
    if not event.leaked or settings.leaks == "ignore":
        return
    text = leak_text(event)
    if settings.leaks == "warn":
        warnings.warn(ConnectionLeakWarning(text), stacklevel=2)
        return
    raise told(
        ConnectionLeak(
            text,
            cause="a connection to tdd_database was not closed when the test ended; it was ended now",
            remedy="close it in the test or its fixtures (async with, or dispose of the engine)",
            option="DATAFLOW_TDD_LEAKS, --tdd-leaks=error|warn|ignore",
        )
    )


def leak_text(event: DatabaseReturned) -> str:
    count = f"{len(event.leaked)} session" + ("s" if len(event.leaked) != 1 else "")
    return "\n".join(
        [f"{count} left in the database of {event.test_id}:", *(f"- {leak}" for leak in event.leaked)]
    )
