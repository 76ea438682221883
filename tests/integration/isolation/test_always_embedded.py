"""`server = embedded` looks at no other server, not even at one that is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dataflow.testing.dsn import Dsn
from dataflow.testing.server.choice import choose
from dataflow.testing.settings import Sources, resolve


async def _never(dsn: Dsn) -> None:
    raise AssertionError(f"somebody wanted to enter {dsn}")


def test_the_embedded_server_is_taken_whatever_else_there_is(test_cache: Path) -> None:
    settings = resolve(
        Sources(
            environment={
                "DATAFLOW_TDD_SERVER": "embedded",
                "DATAFLOW_TDD_CACHE_DIR": str(test_cache),
                "TEST_DATABASE_URL": "postgresql://u@localhost:1/a_test",
            }
        )
    )
    server = asyncio.run(choose(settings, None, try_login=_never, what="a test"))
    try:
        assert server.description.startswith("embedded PostgreSQL")
        assert server.attempts == ()
    finally:
        server.close()
