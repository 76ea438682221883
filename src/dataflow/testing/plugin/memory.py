"""Watching a test's memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from dataflow.testing.plugin.run import MemoryGrowthWarning
from dataflow.testing.recipes.memory import growth_text, resident_mb


def watch(test_id: str, threshold_mb: float) -> Iterator[None]:
    """A fixture's body: compare the process's resident memory (MB) before and after the test."""
    before = resident_mb()
    yield
    grown = resident_mb(collect=True) - before
    if grown > threshold_mb:
        warnings.warn(MemoryGrowthWarning(growth_text(test_id, grown, threshold_mb)), stacklevel=2)
