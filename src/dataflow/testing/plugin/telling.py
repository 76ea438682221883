"""Turning our errors into outcomes of pytest: a skip, or a failure in words instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dataflow.testing.errors import (
    CommitEscaped,
    DatabaseNotClean,
    MissingLibrary,
    NoEventLoop,
    PoolExhausted,
    SchemaFailed,
    ServerError,
    SettingsError,
    TDDError,
    TDDModeDisabled,
    TransactionEnded,
)

# Their messages say all; a traceback through this library would only bury them.
TOLD_WITHOUT_TRACEBACK = (
    CommitEscaped,
    DatabaseNotClean,
    MissingLibrary,
    NoEventLoop,
    PoolExhausted,
    SchemaFailed,
    ServerError,
    SettingsError,
    TransactionEnded,
)


@contextmanager
def telling() -> Iterator[None]:
    """For the bodies of fixtures wider than a test: pytest remembers what they raise for later tests."""
    try:
        yield
    except TDDModeDisabled as error:
        raise skipped(error) from None
    except TOLD_WITHOUT_TRACEBACK as error:
        raise told(error) from None


def told(error: TDDError) -> BaseException:
    return pytest.fail.Exception(f"{type(error).__name__}: {error}", pytrace=False)


def skipped(error: TDDModeDisabled) -> BaseException:
    return pytest.skip.Exception(str(error))
