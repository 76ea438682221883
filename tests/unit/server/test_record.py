"""Only recorded databases are dropped or handed out; a lease of an earlier keeper is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow.testing.server.record import Record, Use


def test_after_a_restart_spares_are_kept_and_everything_else_is_to_be_dropped(tmp_path: Path) -> None:
    path = tmp_path / "databases.json"
    before = Record(path, "boot-1")
    for use in Use:
        before.put(use.value, use)
    after = Record(path, "boot-2")
    assert after.load() == "boot-1"
    assert after.names(Use.SPARE) == ("spare",)
    assert set(after.names(Use.DOOMED)) == {"making", "leased", "doomed"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot": "b", "databases": {"x": "unknown"}}', "\xff"])
def test_an_unreadable_record_vouches_for_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "databases.json"
    path.write_text(content, encoding="latin-1")
    record = Record(path, "boot")
    assert record.load() == ""
    assert all(record.names(use) == () for use in Use)
