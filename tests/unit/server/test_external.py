"""The probe tells apart what listens and what does not, without a driver."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.ports import closed_port

from dataflow.testing.dsn import Dsn
from dataflow.testing.server.external import answers
from dataflow.testing.server.ports import what_answers


def test_a_listening_port_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert answers(Dsn("127.0.0.1", listener.getsockname()[1])) is None


def test_a_closed_port_says_so() -> None:
    with closed_port() as port:
        for host in ("127.0.0.1", "localhost"):
            assert answers(Dsn(host, port)) == "connection refused"


def test_a_missing_socket_says_so(tmp_path: Path) -> None:
    assert answers(Dsn(str(tmp_path))) == "no such file or directory"


def test_what_is_silent_is_not_taken_for_postgresql() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert what_answers("127.0.0.1", port, timeout_s=0.05) == "a program that is not PostgreSQL"


def test_the_room_loads_no_driver_and_no_test_framework() -> None:
    program = (
        "import sys; import dataflow.testing.server.embedded, dataflow.testing.server.external;"
        "print([m for m in ('psycopg', 'asyncpg', 'asyncio', 'pytest', 'psutil', 'platformdirs', 'subprocess',"
        " 'logging') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
