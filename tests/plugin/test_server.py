"""What becomes of the embedded server after a run."""

from __future__ import annotations

import pytest
from tests.processes import KEEPER, POSTGRES, processes_of, wait_gone

TEST = """
    async def test_it(tdd_test_context):
        assert await tdd_test_context.connection.fetchval("SELECT 1") == 1
"""


@pytest.fixture
def cache(project, make_cache_dir):
    path = make_cache_dir()
    project.env.setenv("DATAFLOW_TDD_CACHE_DIR", str(path))
    return path


def test_it_stays_for_the_next_run(project, cache):
    project.run(TEST).assert_outcomes(passed=1).assert_says("started; ready in")
    assert processes_of(cache, KEEPER)
    assert processes_of(cache, POSTGRES)
    # This one's idle time is the one that counts.
    project.run(TEST, "--tdd-server-idle=0").assert_outcomes(passed=1).assert_says("was running; ready in")


def test_in_continuous_integration_neither_server_nor_keeper_stays(project, cache):
    """A machine that waits for all processes of a job would wait in vain."""
    project.env.setenv("CI", "true")
    project.run(TEST).assert_outcomes(passed=1).assert_says("CI profile", "started; ready in")
    wait_gone(cache)
