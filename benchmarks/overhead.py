"""What `tdd_test_context` costs per test, beside the fixture that one would write by hand.

Three suites of the same empty asynchronous tests run in turn: without a fixture, with the hand-written one,
with ours. The cost of a fixture is what its suite takes more per test than the suite without one. Hand-written
and empty suites run without our plugin, so all of its hooks count as ours.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.setting import options, pytest
from dataflow.testing.server.embedded import lease_database

TESTS = int(os.environ.get("BENCH_TESTS", "500"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "9"))
WARM_UP = 50  # first tests of a suite, not counted: they pay for imports and the first connection

_CONFTEST = """
import json, os, time
import asyncpg, pytest, pytest_asyncio

URL = os.environ["BENCH_URL"]
times = []

def pytest_runtest_logstart():
    times.append(time.perf_counter())

@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish():
    global end
    end = time.perf_counter()

def pytest_unconfigure():
    counted = times[{warm_up}:]
    with open(os.environ["BENCH_OUT"], "w") as out:
        json.dump((end - counted[0]) / len(counted) * 1e3, out)
"""

_HAND_SESSION = """
@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_connection():
    connection = await asyncpg.connect(URL)
    yield connection
    await connection.close()

@pytest_asyncio.fixture(loop_scope="session")
async def hand_written(session_connection):
    await session_connection.execute("BEGIN")
    yield session_connection
    await session_connection.execute("ROLLBACK")
"""

_HAND_FUNCTION = """
@pytest_asyncio.fixture
async def hand_written():
    connection = await asyncpg.connect(URL)
    await connection.execute("BEGIN")
    yield connection
    await connection.execute("ROLLBACK")
    await connection.close()
"""

_SUITE = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
async def test_empty({fixture}number):
    pass
"""


@dataclass(frozen=True)
class Round:
    """Time per test in ms, of each suite."""

    empty: float
    hand: float
    ours: float

    @property
    def ratio(self) -> float:
        return (self.ours - self.empty) / (self.hand - self.empty)


def run(folder: Path) -> None:
    lease = lease_database(options(folder), what="benchmark")
    try:
        for loop_scope, hand_written, most in (
            ("session", _HAND_SESSION, 1.5),
            ("function", _HAND_FUNCTION, 0.4),
        ):
            _compare(folder, loop_scope, hand_written, lease.dsn.url(), most)
    finally:
        lease.close()


def _compare(folder: Path, loop_scope: str, hand_written: str, url: str, most: float) -> None:
    """:param most: the ratio that is wanted at most."""
    place = folder / loop_scope
    _write_suites(place, loop_scope, hand_written)
    rounds = [_one_round(folder, place, url) for _ in range(ROUNDS)]
    print(
        f"{loop_scope} loop: {TESTS} empty tests, the first {WARM_UP} not counted, {ROUNDS} rounds, "
        "suites in turn; ms per test, medians"
    )
    for name in ("empty", "hand", "ours"):
        print(f"  {name:<6} {median(getattr(each, name) for each in rounds):7.3f}")
    hand = median(each.hand - each.empty for each in rounds)
    ours = median(each.ours - each.empty for each in rounds)
    ratios = sorted(each.ratio for each in rounds)
    print(f"  cost   hand-written {hand:.3f}, tdd_test_context {ours:.3f}")
    print(
        f"  ratio  {median(ratios):.2f} (median of the rounds; {ratios[0]:.2f} to {ratios[-1]:.2f}; "
        f"at most {most:.2f} is wanted)"
    )


def _write_suites(place: Path, loop_scope: str, hand_written: str) -> None:
    place.mkdir()
    (place / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\n"
        f"asyncio_default_test_loop_scope = {loop_scope}\n"
        f"asyncio_default_fixture_loop_scope = {loop_scope}\n"
    )
    (place / "conftest.py").write_text(_CONFTEST.replace("{warm_up}", str(WARM_UP)) + hand_written)
    for name, fixture in (("empty", ""), ("hand", "hand_written, "), ("ours", "tdd_test_context, ")):
        (place / f"test_{name}.py").write_text(_SUITE.format(tests=TESTS, fixture=fixture))


def _one_round(folder: Path, place: Path, url: str) -> Round:
    return Round(**{name: _measure(folder, place, name, url) for name in ("empty", "hand", "ours")})


def _measure(folder: Path, place: Path, name: str, url: str) -> float:
    out = place / f"{name}.json"
    arguments = ("-c", str(place / "pytest.ini"), "--rootdir", str(place), str(place / f"test_{name}.py"))
    pytest(folder, *arguments, without_plugin=name != "ours", BENCH_URL=url, BENCH_OUT=str(out))
    return float(json.loads(out.read_text()))
