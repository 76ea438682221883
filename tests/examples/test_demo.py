"""The first thing that somebody runs: `make demo`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURE = r" +\d+\.\d\d ms +\d+\.\d\d ms"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_demo_runs_the_script_that_is_tested_here() -> None:
    """Only asked, not run: it would set up the checkout's own environment."""
    # Of a make that runs this test, and would be the parent of this one.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "-n", "demo"], cwd=ROOT, env=kept, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f'PATH="{ROOT}/.venv/bin:$PATH" sh examples/demo.sh'


def test_the_demo_runs_the_tests_of_both_examples_and_ends_with_the_summary(
    make_cache_dir: Callable[[], Path],
) -> None:
    """On a server that it starts itself, and which is gone afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DATAFLOW_TDD_CACHE_DIR": str(make_cache_dir()),
        "DATAFLOW_TDD_SERVER_IDLE": "0",
    }
    done = subprocess.run(
        ["sh", "examples/demo.sh", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=kept | own,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Running the tests of examples/orders")
    assert "Next: read examples/orders/tests/conftest.py" in done.stdout
    summary = "\n".join(lines[next(i for i, line in enumerate(lines) if " DataFlow TDD " in line) :])
    assert re.search(r"^server     embedded PostgreSQL 18\.\d+ \(.+\), started; ready in \d+ ms$", summary, re.M)
    assert re.search(r"^tests      \d+ +median +p95 +target$", summary, re.M)
    for phase, target in (("set-up", 20), ("schema", 20), ("data", 30), ("total", 100)):
        assert re.search(rf"^  {phase}{FIGURE} +{target} ms  (ok|over)$", summary, re.M), phase
    assert re.search(rf"^  tear-down{FIGURE}$", summary, re.M)
    isolated = re.search(r"^isolation  proven for (\d+) of (\d+) tests: rolled back", summary, re.M)
    assert isolated
    assert isolated[1] == isolated[2]
    assert "not proven" not in summary
    passed, of_requests = re.findall(r"^(\d+) passed in [\d.]+s$", summary, re.M)
    assert int(passed) >= int(isolated[1]) > 50
    assert "Running the tests of examples/fastapi" in done.stdout
    assert int(of_requests) > 5
    assert "warning" not in done.stdout
