"""Variables that name a test's own database, for code that reads its address from the environment."""

from __future__ import annotations

from collections.abc import Collection

import pytest


def point_environment(request: pytest.FixtureRequest, names: Collection[str], url: str) -> None:
    """Variables of this process until the test is over. By pytest's own means: a test that sets them, too, would
    otherwise have its own clean-up bring ours back."""
    if names:
        monkeypatch = request.getfixturevalue("monkeypatch")
        for name in names:
            monkeypatch.setenv(name, url)
