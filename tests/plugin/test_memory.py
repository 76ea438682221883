"""Watching the memory of tests, by option and by fixture."""

from __future__ import annotations

import re

GROWING = """
    kept = []

    async def test_first(tdd_test_context): pass

    async def test_grows(tdd_test_context{more}):
        kept.append(bytearray(b"x") * (30 * 2**20))

    async def test_steady(tdd_test_context{more}):
        bytearray(b"x") * (30 * 2**20)
"""
NO_PSUTIL = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name == "psutil":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Blocked())
"""


def test_growth_past_the_threshold_is_told_with_its_test(project):
    outcome = project.run(GROWING.format(more=""), "--tdd-memory-threshold=20", warnings_are_errors=False)
    outcome.assert_outcomes(passed=3, warnings=1).assert_says("(threshold 20 MB)")
    told = re.search(
        r"MemoryGrowthWarning: test_it\.py::test_grows: the process grew by (\d+)\.\d MB", outcome.text
    )
    assert told
    assert int(told[1]) >= 20


def test_nothing_is_watched_without_threshold(project):
    project.run(GROWING.format(more="")).assert_outcomes(passed=3)


def test_the_fixture_watches_its_test_with_the_guides_threshold(project):
    outcome = project.run(GROWING.format(more=", memory_monitor"), warnings_are_errors=False)
    outcome.assert_outcomes(passed=3, warnings=1).assert_says("(threshold 10 MB)")
    project.run(None, "--tdd-memory-threshold=50").assert_outcomes(passed=3)


def test_without_psutil_the_message_says_what_to_install(project):
    project.conftest(NO_PSUTIL)
    outcome = project.run(GROWING.format(more=", memory_monitor"))
    outcome.assert_outcomes(passed=1, errors=2).assert_says(
        "the memory monitor needs psutil, which is not installed", "pip install 'dataflow-tdd[memory]'"
    )


def test_without_psutil_the_option_is_told_once_per_test_and_later_tests_run(project):
    project.conftest(NO_PSUTIL)
    outcome = project.run(GROWING.format(more=""), "--tdd-memory-threshold=20")
    outcome.assert_says("the memory monitor needs psutil", "--tdd-memory-threshold (0 switches the monitor off)")
    outcome.assert_outcomes(passed=1, errors=2)
