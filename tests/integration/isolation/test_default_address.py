"""The default address of the guide: used when it lets us in, passed over when it does not.

It belongs to everybody on this machine, so nothing here looks at it from the machine's own network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.networks import in_a_network_of_its_own, may_make_networks
from tests.ports import unused_port

GUIDE_PORT = 5433
PROGRAM = """
    import asyncio, json, sys
    from dataclasses import replace
    from pathlib import Path

    import psycopg
    from dataflow.testing.runtime import Runtime
    from dataflow.testing.server import choice
    from dataflow.testing.server.embedded import EmbeddedOptions, server_dsn, start_server, stop_server

    options, port = EmbeddedOptions(cache_dir=Path(sys.argv[1])), int(sys.argv[2])
    if port != choice.GUIDE_DSN.port:
        choice.GUIDE_DSN = replace(choice.GUIDE_DSN, port=port)
    found = {}

    async def use(name):
        tdd = Runtime()
        async with tdd.test_context() as context:
            shown = await context.connection.fetchval("SHOW port")
        server = tdd.manager.server
        found[name] = [server.description, shown, list(server.attempts)]
        await tdd.close()

    asyncio.run(use("nothing there"))
    start_server(options, port)
    try:
        asyncio.run(use("the guide's"))
        with psycopg.connect(server_dsn(options, port, admin=True).url(), autocommit=True) as admin:
            admin.execute("ALTER ROLE dataflow_test PASSWORD 's3cret'")
        asyncio.run(use("another password"))
    finally:
        stop_server(options, port, force=True)
    print(json.dumps(found))
"""


@pytest.mark.parametrize("place", ["the guide's port in a network of its own", "another port"])
def test_the_default_address_is_used_if_it_lets_us_in(test_cache: Path, place: str) -> None:
    """On another port the constant alone differs; that its value is the guide's, test_tcp proves."""
    port = unused_port() if place == "another port" else GUIDE_PORT
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(test_cache), str(port)]
    if port == GUIDE_PORT:
        if not may_make_networks():
            pytest.skip("this user may not make a network of its own")
        command = in_a_network_of_its_own(*command)
    environment = {name: value for name, value in os.environ.items() if name != "DATAFLOW_TDD_SERVER"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    where = f"localhost:{port}"
    description, shown, attempts = found["nothing there"]
    assert description.startswith("embedded PostgreSQL")
    assert attempts == [f"{where} (the default address): connection refused"]
    description, shown, attempts = found["the guide's"]
    assert description == f"external, postgresql://dataflow_test:***@{where}/dataflow_test (the default address)"
    assert (shown, attempts) == (str(port), [])
    description, shown, attempts = found["another password"]
    assert description.startswith("embedded PostgreSQL")
    (attempt,) = attempts
    assert attempt.startswith(f"{where} (the default address): {where} refused user 'dataflow_test'")
