"""One world for all programs of a session, so that its databases live through many of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.exactness.world import World
from tests.servers import server_of_its_own


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with server_of_its_own() as admin:
        world = World(admin)
        yield world
        world.close()
