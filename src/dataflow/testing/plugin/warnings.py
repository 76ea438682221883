"""The plugin's warnings, for ``filterwarnings``."""

from __future__ import annotations

import pytest


class TDDWarning(pytest.PytestWarning):
    """Something of a test's database work is not as it should be, and the test passed all the same."""


class ConnectionLeakWarning(TDDWarning):
    """A test kept connections that it should have given back."""


class EscapeWarning(TDDWarning):
    """Something was committed while a test ran whose work is rolled back."""


class MemoryGrowthWarning(TDDWarning):
    """A test made the process grow by more than the threshold."""


class OutsideWarning(TDDWarning):
    """A test changed something that does not belong to its database: a role, another database, a setting."""
