"""How much memory the process has, and what to say when a test made it grow."""

from __future__ import annotations

import gc

from dataflow.testing.errors import TDDError


def resident_mb(*, collect: bool = False) -> float:
    """Resident memory of this process in MB (2**20 bytes), after a garbage collection if asked for.

    :raises TDDError: psutil is not installed.
    """
    try:
        import psutil
    except ModuleNotFoundError:
        raise TDDError(
            "the memory monitor needs psutil, which is not installed",
            remedy="pip install 'dataflow-tdd[memory]'",
            option="DATAFLOW_TDD_MEMORY_THRESHOLD, --tdd-memory-threshold (0 switches the monitor off)",
        ) from None
    if collect:
        gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20


def growth_text(test_id: str, grown_mb: float, threshold_mb: float) -> str:
    return (
        f"{test_id}: the process grew by {grown_mb:.1f} MB (threshold {threshold_mb:g} MB). "
        "Likely cause: results kept in a global, a cache or a wider fixture. "
        "Fetch less, or in portions (cursor), and drop what the test no longer needs."
    )
