"""What it takes until the first test runs: the first start ever, a later cold one, a warm run of one test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from benchmarks.setting import environment, options, pytest
from dataflow.testing.server.embedded import stop_server

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "9"))

PAUSE_S = 0.3  # between two processes, as between two runs of a person: spare databases are made meanwhile

_LEASE = """
import sys, time
from pathlib import Path
started = time.perf_counter()
from dataflow.testing.server.embedded import EmbeddedOptions, lease_database
imported = time.perf_counter()
lease = lease_database(EmbeddedOptions(cache_dir=Path(sys.argv[1])), what="benchmark")
leased = time.perf_counter()
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect(lease.dsn.where)
print((imported - started) * 1e3, (leased - imported) * 1e3)
"""

_PLAIN = "async def test_one():\n    pass\n"
_OURS = "async def test_one(tdd_test_context):\n    pass\n"
_INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


def run(folder: Path) -> None:
    print(f"server: from the call to a database of one's own, ms, {ROUNDS} rounds: median (min to max)")
    _say("first start ever (programs checked or copied, initdb, start)", _starts(folder, forget=True))
    _say("later cold start", _starts(folder, forget=False))
    _say("warm lease", [_lease(folder) for _ in range(ROUNDS)])
    _one_test(folder)


def _starts(folder: Path, *, forget: bool) -> list[float]:
    times = []
    for _ in range(ROUNDS):
        stop_server(options(folder), force=True)
        if forget:
            shutil.rmtree(folder / "cache", ignore_errors=True)
        times.append(_lease(folder))
    return times


def _lease(folder: Path) -> float:
    """Milliseconds of one lease in a process of its own, without that process's own start."""
    sleep(PAUSE_S)
    command = [sys.executable, "-c", _LEASE, str(folder / "cache")]
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True, check=True)
    return float(done.stdout.split()[1])


def _one_test(folder: Path) -> None:
    (folder / "pytest.ini").write_text(_INI)
    (folder / "test_plain.py").write_text(_PLAIN)
    (folder / "test_ours.py").write_text(_OURS)
    _lease(folder)  # the server is warm
    plain, ours = [], []
    for _ in range(2 * ROUNDS):
        plain.append(_run_ms(folder, "test_plain.py"))
        ours.append(_run_ms(folder, "test_ours.py"))
    print(f"a pytest run of one test, whole process, plugin loaded, server warm, ms, {2 * ROUNDS} rounds in turn")
    _say("  without a fixture of ours", plain)
    _say("  with tdd_test_context", ours)
    more = [b - a for a, b in zip(plain, ours, strict=True)]
    print(f"  more with the fixture: {median(more):.0f} ms (median of the differences; at most 60 is wanted)")


def _run_ms(folder: Path, test: str) -> float:
    sleep(PAUSE_S)
    started = perf_counter()
    pytest(folder, "-c", str(folder / "pytest.ini"), str(folder / test))
    return (perf_counter() - started) * 1e3


def _say(what: str, times: list[float]) -> None:
    print(f"{what}: {median(times):.0f} ({min(times):.0f} to {max(times):.0f})")
