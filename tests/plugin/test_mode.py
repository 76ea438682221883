"""TDD mode: unset, on, off; in each word and from each place."""

from __future__ import annotations

import pytest

TESTS = """
    import pytest
    from dataflow.testing.tdd_support import is_tdd_mode

    async def test_context(tdd_test_context):
        assert is_tdd_mode()
        assert await tdd_test_context.connection.fetchval("SELECT 1") == 1

    def test_url(tdd_database_url):
        assert tdd_database_url.startswith("postgresql://")

    @pytest.mark.parametrize("n", range(2))
    async def test_own_fixture(own, n): pass

    async def test_plain_connection(managed_connection): pass

    async def test_resources(resource_manager):
        assert is_tdd_mode()

    def test_templates(schema_templates):
        assert is_tdd_mode()

    def test_memory(memory_monitor):
        assert is_tdd_mode()

    def test_settings(tdd_settings):
        assert is_tdd_mode()

    def test_other(): pass
"""
IS_ON = "from dataflow.testing.tdd_support import is_tdd_mode\nassert is_tdd_mode()\n"
OWN = """
import pytest
from dataflow.testing.tdd_support import tdd_test_context as open_context

@pytest.fixture
async def own():
    async with open_context() as context:
        yield context
"""


@pytest.mark.parametrize("word", ["TRUE", "1", "Yes", "oN"])
def test_each_yes_turns_it_on(project, word):
    project.env.setenv("DATAFLOW_TDD_MODE", word)
    project.conftest(IS_ON + OWN)
    project.run(TESTS).assert_outcomes(passed=10)


def test_unset_it_turns_on_when_a_fixture_is_asked_for(project):
    project.conftest(IS_ON.replace("assert", "assert not") + OWN)
    project.run(TESTS).assert_outcomes(passed=10)


@pytest.mark.parametrize("word", ["False", "0", "no", "OFF"])
def test_each_no_skips_what_uses_a_fixture_and_nothing_else(project, word, tmp_path):
    """Also tests with the project's own fixture built on the context manager; and no server is started."""
    project.env.setenv("DATAFLOW_TDD_CACHE_DIR", str(tmp_path / "cache"))
    project.env.setenv("DATAFLOW_TDD_MODE", word)
    project.conftest(OWN)
    outcome = project.run(TESTS, "-rs").assert_outcomes(passed=1, skipped=9)
    outcome.assert_says("TDD mode is switched off", "set to false", "DATAFLOW_TDD_MODE, --tdd-mode")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("place", ["command line", "ini"])
def test_it_can_be_switched_off_where_options_are_given(project, place):
    project.conftest(OWN)
    arguments = ["-rs"]
    if place == "ini":
        project.ini(asyncio_mode="auto", tdd_mode="false")
    else:
        arguments += ["--tdd-mode", "off"]
    project.run(TESTS, *arguments).assert_outcomes(passed=1, skipped=9).assert_says("TDD mode is switched off")


def test_the_command_line_wins_over_the_environment(project):
    project.env.setenv("DATAFLOW_TDD_MODE", "false")
    project.conftest(OWN)
    project.run(TESTS, "--tdd-mode=true").assert_outcomes(passed=10)


def test_switched_off_the_infrastructure_does_nothing(project, tmp_path):
    """The guide's session fixture runs in every project; off, it must neither start a server nor fail."""
    project.env.setenv("DATAFLOW_TDD_CACHE_DIR", str(tmp_path / "cache"))
    project.env.setenv("DATAFLOW_TDD_MODE", "false")
    project.session_loops()
    project.conftest(
        """
        import pytest
        from dataflow.testing.tdd_support import setup_tdd_infrastructure, teardown_tdd_infrastructure

        @pytest.fixture(scope="session", autouse=True)
        async def tdd_session():
            await setup_tdd_infrastructure()
            yield
            await teardown_tdd_infrastructure()
        """
    )
    project.run("def test_other(): pass").assert_outcomes(passed=1)
    assert not (tmp_path / "cache").exists()


def test_a_word_that_is_neither_is_told_and_nothing_hangs(project):
    project.env.setenv("DATAFLOW_TDD_MODE", "perhaps")
    outcome = project.run("async def test_it(tdd_test_context): pass\ndef test_other(): pass")
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.assert_says("DATAFLOW_TDD_MODE 'perhaps': it must be true, 1, yes or on; or false, 0, no or off")
