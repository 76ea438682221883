"""Several sources in a row are one source."""

from __future__ import annotations

import time
from pathlib import Path

from dataflow.testing.dsn import Dsn
from dataflow.testing.template.command import Command
from dataflow.testing.template.files import SqlFiles
from dataflow.testing.template.source import SchemaSource
from dataflow.testing.template.steps import EMPTY, Steps


def test_the_fingerprint_follows_each_step_and_their_order(tmp_path: Path) -> None:
    for name in ("a.sql", "b.sql"):
        (tmp_path / name).write_text(name)
    a, b = SqlFiles(tmp_path / "a.sql"), SqlFiles(tmp_path / "b.sql")
    prints = {Steps(a, b).fingerprint(), Steps(b, a).fingerprint(), Steps(a).fingerprint(), EMPTY.fingerprint()}
    assert len(prints) == 4
    assert Steps(a, b).fingerprint() in prints


def test_words_for_people(tmp_path: Path) -> None:
    source: SchemaSource = Steps(SqlFiles(tmp_path / "a.sql"), Command("seed --all", ["x"]))
    assert source.describe() == "a.sql, then seed --all"
    assert EMPTY.describe() == "no schema"


class Takes:
    """A source that takes a moment."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.limits: list[float] = []

    def fingerprint(self) -> str:
        return "takes"

    def describe(self) -> str:
        return "takes"

    def apply(self, database: Dsn, limit_s: float) -> None:
        self.limits.append(limit_s)
        time.sleep(self.seconds)


def test_one_limit_is_for_all_of_them() -> None:
    first, second = Takes(0.05), Takes(0)
    Steps(first, second).apply(Dsn("h"), 20.0)
    assert first.limits[0] <= 20.0
    assert second.limits[0] <= first.limits[0] - 0.05
    Steps(first, second).apply(Dsn("h"), 0.01)
    assert second.limits[1] == 0.0
