"""Watching a test's memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from dataflow.testing.plugin.warnings import MemoryGrowthWarning
from dataflow.testing.recipes.memory import growth_text, resident_mb


@contextmanager
def memory_watched(test_id: str, threshold_mb: float) -> Iterator[None]:
    """Compare the process's resident memory (MB) before and after, and warn when it grew by more."""
    before = resident_mb()
    yield
    grown = resident_mb(collect=True) - before
    if grown > threshold_mb:
        warnings.warn(MemoryGrowthWarning(growth_text(test_id, grown, threshold_mb)), stacklevel=3)
