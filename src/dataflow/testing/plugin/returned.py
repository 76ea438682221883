"""What is told when a test gives its database back: what it left, what it changed outside, what was done."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from dataflow.testing.errors import ConnectionLeak
from dataflow.testing.plugin.telling import told
from dataflow.testing.plugin.warnings import ConnectionLeakWarning, OutsideWarning, TDDWarning

if TYPE_CHECKING:
    import pytest

    from dataflow.testing.events import DatabaseReturned
    from dataflow.testing.settings import Settings

_CLOSE = (
    "close it also if the test fails: in a fixture behind its yield, with a `with` block, by engine.dispose()"
)


def tell_returned(event: DatabaseReturned, item: pytest.Item | None, settings: Settings, *, failed: bool) -> None:
    """Warn or fail, as the settings say.

    :param failed: the test did, and so may not have come to where it closes things: its leaks are told by the
        summary alone.
    :raises Failed: sessions were left behind, and that is an error.
    """
    if event.explanation and item is not None:
        # pytest shows it without the name of the test, if the test passed.
        text = "\n".join([f"test       {event.test_id}", *event.explanation])
        item.add_report_section("teardown", "dataflow-tdd explain", text)
    if event.outside:
        changes = ", ".join(event.outside)
        text = f"{event.test_id} changed something outside of its database, which stays: {changes}"
        warn(OutsideWarning(text), item)
    if not event.leaked or failed or settings.leaks == "ignore":
        return
    text = leak_text(event)
    if settings.leaks == "warn":
        warn(ConnectionLeakWarning(f"{text}\n  way out: {_CLOSE}"), item)
        return
    raise told(
        ConnectionLeak(
            text,
            cause="a connection to tdd_database was not closed when the test ended; it was ended now",
            remedy=_CLOSE,
            option="DATAFLOW_TDD_LEAKS, --tdd-leaks=error|warn|ignore",
        )
    )


def warn(warning: TDDWarning, item: pytest.Item | None) -> None:
    """With the line of the test, not one of this library."""
    if item is None:
        warnings.warn(warning, stacklevel=3)
    else:
        line = (item.location[1] or 0) + 1
        warnings.warn_explicit(warning, type(warning), filename=str(item.path), lineno=line)


def leak_text(event: DatabaseReturned) -> str:
    count = f"{len(event.leaked)} session" + ("s" if len(event.leaked) != 1 else "")
    return "\n".join(
        [f"{count} left in the database of {event.test_id}:", *(f"- {leak}" for leak in event.leaked)]
    )
