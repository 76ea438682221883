"""Thousands of tests in a row: nothing grows."""

from __future__ import annotations

import re

import pytest

# Every hundredth test looks at the server and at this process; the others are empty.
TESTS = """
    import gc
    import asyncio
    import psutil
    import pytest

    seen = []

    async def backends(connection):
        return await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
        )

    @pytest.mark.parametrize("n", range(2001))
    async def test_empty(tdd_test_context, n):
        if n % 100:
            return
        connection = tdd_test_context.connection
        for _ in range(200):  # those of loops that ended take a moment to go
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            if (count := await backends(connection)) <= 1:
                break
            await asyncio.sleep(0.01)
        gc.collect()
        memory = psutil.Process().memory_info().rss / 2**20
        seen.append((count, len(connection.log.savepoints), psutil.Process().num_fds(), memory))

    def test_nothing_grew(tdd_runtime):
        counts, savepoints, descriptors, memory = zip(*seen)
        assert set(counts) == {1}
        assert set(savepoints) == {0}
        assert max(descriptors) <= descriptors[1] + 2
        assert memory[-1] - memory[2] < 40, memory
        assert tdd_runtime.manager.connection_pool.get_size() <= 1
        assert not tdd_runtime.manager.active_connections
"""


@pytest.mark.timeout(220)
@pytest.mark.parametrize("loops", ["function", "session"])
def test_two_thousand_tests_leave_backends_descriptors_and_memory_as_they_were(project, loops):
    if loops == "session":
        project.session_loops()
    outcome = project.run(TESTS, "-q", "--tb=short", "-p", "no:timeout", warnings_are_errors=False, limit_s=200)
    outcome.assert_outcomes(passed=2002)
    proven = re.search(r"isolation +proven for (\d+) of 2001 tests: rolled back", outcome.text)
    assert proven is not None
    assert int(proven[1]) >= 1_990, "of some, what neighbours on the server committed cannot be told"
