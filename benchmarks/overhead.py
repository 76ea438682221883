"""What `tdd_test_context` and `tdd_psycopg` cost per test, beside the fixture that one would write by hand.

Three suites of the same empty tests run in turn: without a fixture, with the hand-written one,
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

_HAND_PSYCOPG = """
import psycopg

@pytest.fixture(scope="session")
def session_connection():
    with psycopg.connect(URL, autocommit=True) as connection:
        yield connection

@pytest.fixture
def hand_written(session_connection):
    session_connection.execute("BEGIN")
    yield session_connection
    session_connection.execute("ROLLBACK")
"""

_SUITE = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
{kind} test_it({fixture}number):
    {body}
"""
# As one that writes a row, but needs no table: the transaction gets a number.
_WRITES = "await {connection}.execute('SELECT pg_current_xact_id()')"


@dataclass(frozen=True)
class Kind:
    """Of tests.

    :ivar hand_written: a conftest. :ivar fixture: ours.
    :ivar most: the ratio that is wanted at most. :ivar loop_scope: of asynchronous tests.
    :ivar writes: each test sends a statement, which is part of the cost.
    """

    name: str
    hand_written: str
    fixture: str
    most: float | None
    loop_scope: str = "session"
    synchronous: bool = False
    writes: bool = False

    def body(self, connection: str) -> str:
        """Of a test. :param connection: how it is called; empty for a test that has none."""
        return _WRITES.format(connection=connection) if self.writes and connection else "pass"


KINDS = (
    Kind("session loop", _HAND_SESSION, "tdd_test_context", 1.5),
    Kind("session loop, a statement in each test", _HAND_SESSION, "tdd_test_context", None, writes=True),
    Kind("function loop", _HAND_FUNCTION, "tdd_test_context", 0.4, "function"),
)
PSYCOPG = Kind("psycopg", _HAND_PSYCOPG, "tdd_psycopg", 1.5, synchronous=True)


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
        for kind in KINDS:
            compare(folder, kind, lease.dsn.url())
    finally:
        lease.close()


def compare(folder: Path, kind: Kind, url: str) -> None:
    """Print what the fixtures cost."""
    place = folder / kind.name.replace(",", "").replace(" ", "-")
    _write_suites(place, kind)
    rounds = [_one_round(folder, place, url) for _ in range(ROUNDS)]
    wanted = "" if kind.most is None else f"; at most {kind.most:.2f} is wanted"
    print(
        f"{kind.name}: {TESTS} tests, the first {WARM_UP} not counted, {ROUNDS} rounds, "
        "suites in turn; ms per test, medians"
    )
    for name in ("empty", "hand", "ours"):
        print(f"  {name:<6} {median(getattr(each, name) for each in rounds):7.3f}")
    hand = median(each.hand - each.empty for each in rounds)
    ours = median(each.ours - each.empty for each in rounds)
    ratios = sorted(each.ratio for each in rounds)
    print(f"  cost   hand-written {hand:.3f}, {kind.fixture} {ours:.3f}")
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    print(f"  ratio  {median(ratios):.2f} (median of the rounds; {spread}{wanted})")


def _write_suites(place: Path, kind: Kind) -> None:
    place.mkdir()
    (place / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\n"
        f"asyncio_default_test_loop_scope = {kind.loop_scope}\n"
        f"asyncio_default_fixture_loop_scope = {kind.loop_scope}\n"
    )
    (place / "conftest.py").write_text(_CONFTEST.replace("{warm_up}", str(WARM_UP)) + kind.hand_written)
    written = "def" if kind.synchronous else "async def"
    for name, fixture, connection in (
        ("empty", "", ""),
        ("hand", "hand_written, ", "hand_written"),
        ("ours", f"{kind.fixture}, ", f"{kind.fixture}.connection"),
    ):
        suite = _SUITE.format(tests=TESTS, kind=written, fixture=fixture, body=kind.body(connection))
        (place / f"test_{name}.py").write_text(suite)


def _one_round(folder: Path, place: Path, url: str) -> Round:
    return Round(**{name: _measure(folder, place, name, url) for name in ("empty", "hand", "ours")})


def _measure(folder: Path, place: Path, name: str, url: str) -> float:
    out = place / f"{name}.json"
    arguments = ("-c", str(place / "pytest.ini"), "--rootdir", str(place), str(place / f"test_{name}.py"))
    pytest(folder, *arguments, without_plugin=name != "ours", BENCH_URL=url, BENCH_OUT=str(out))
    return float(json.loads(out.read_text()))
