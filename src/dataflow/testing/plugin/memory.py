"""Watching a test's memory."""

from __future__ import annotations

import warnings

from dataflow.testing.plugin.warnings import MemoryGrowthWarning
from dataflow.testing.recipes.memory import growth_text, resident_mb


class MemoryWatch:
    """Compares the process's resident memory (MB) at `end` with that at the start."""

    def __init__(self, test_id: str, threshold_mb: float) -> None:
        self._test_id = test_id
        self._threshold_mb = threshold_mb
        self._before = resident_mb()

    def end(self) -> None:
        grown = resident_mb(collect=True) - self._before
        if grown > self._threshold_mb:
            text = growth_text(self._test_id, grown, self._threshold_mb)
            warnings.warn(MemoryGrowthWarning(text), stacklevel=2)
