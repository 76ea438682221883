"""Measuring memory."""

from __future__ import annotations

from dataflow.testing.recipes.memory import growth_text, resident_mb


def test_what_is_held_is_seen_in_mb() -> None:
    before = resident_mb(collect=True)
    held = bytearray(b"x") * (40 * 2**20)
    grown = resident_mb() - before
    assert grown > 30  # what else the process gave back meanwhile is nobody's business
    assert len(held) == 40 * 2**20


def test_the_words() -> None:
    text = growth_text("test_a", 12.34, 10.0)
    assert text.startswith("test_a: the process grew by 12.3 MB (threshold 10 MB). Likely cause: ")
