"""Settings as pytest users give them: command line, environment, ini; and what bad ones lead to."""

from __future__ import annotations

import pytest

from dataflow.testing.options import OPTIONS

SHOW = """
    def test_show(tdd_settings):
        print()
        for name in ("pool_size", "timeout", "leaks"):
            print("setting=" + tdd_settings.explain(name))
"""


def test_command_line_wins_over_environment_over_ini_over_profile(project):
    project.env.setenv("CI", "true")
    project.ini(tdd_pool_size="9", tdd_timeout="12", tdd_leaks="error")
    project.env.setenv("DATAFLOW_TDD_TIMEOUT", "22")
    project.env.setenv("DATAFLOW_TDD_LEAKS", "ignore")
    outcome = project.run(SHOW, "-s", "--tdd-leaks=warn").assert_outcomes(passed=1)
    assert outcome.marked("setting") == [
        "pool_size 9 (ini option tdd_pool_size)",
        "timeout 22.0 (DATAFLOW_TDD_TIMEOUT)",
        "leaks warn (--tdd-leaks)",
    ]


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"CI": "true"}, "pool_size 3 (CI profile)"),
        ({"JENKINS": "1", "CONTAINER": "true"}, "pool_size 3 (CI profile)"),
        ({"CONTAINER": "true"}, "pool_size 2 (container profile)"),
    ],
)
def test_profiles_of_the_environment_are_named_as_origin(project, variables, shown):
    for name, value in variables.items():
        project.env.setenv(name, value)
    assert shown in project.run(SHOW, "-s").assert_outcomes(passed=1).marked("setting")


def test_each_option_is_a_flag_and_an_ini_option_with_the_name_of_its_variable(project):
    outcome = project.run("", "--help")
    for option in OPTIONS:
        kind = "linelist" if option.several else "string"
        outcome.assert_says(f"{option.flag}=VALUE", f"{option.ini} ({kind}):", f"(also {option.environment})")


def test_all_violations_are_in_one_message_and_other_tests_run(project):
    project.env.setenv("DATAFLOW_TDD_POOL_SIZE", "0")
    project.database("mysql://user:hunter2@host/x")
    project.ini(tdd_timeout="soon")
    outcome = project.run(
        """
        async def test_context(tdd_test_context): pass
        def test_url(tdd_database_url): pass
        def test_settings(tdd_settings): pass
        async def test_managed(managed_connection): pass
        def test_other(): pass
        """,
        "--tdd-leaks=never",
        "-oasyncio_mode=auto",
    )
    outcome.assert_outcomes(passed=1, errors=4)
    outcome.assert_says(
        "SettingsError: 4 invalid settings:",
        "- DATAFLOW_TDD_POOL_SIZE '0': it must be a whole number from 1 to 10000",
        "- TEST_DATABASE_URL: it must be a PostgreSQL URL",
        "- ini option tdd_timeout 'soon': it must be a number of seconds, more than 0",
        "- --tdd-leaks 'never': it must be one of error, warn, ignore",
    )
    assert outcome.text.count("4 invalid settings:") >= 4
    outcome.assert_silent_about("hunter2", "Traceback")


def test_a_verbose_run_shows_settings_in_its_header_also_bad_ones(project):
    project.run("def test_other(): pass", "-v", "--tdd-slow=7").assert_says("dataflow-tdd: slow 7.0 (--tdd-slow)")
    bad = project.run("def test_other(): pass", "-v", "--tdd-slow=x").assert_outcomes(passed=1)
    bad.assert_says("dataflow-tdd: 1 invalid setting: - --tdd-slow 'x': it must be a number of ms")


SECRET = "s3cret%20p%40ss"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql://me:{SECRET}@localhost:1/app_test", "ServerUnreachable: no connection to"),
        (f"postgresql://me:{SECRET}@localhost:1/production", "NotATestDatabase: the database 'production'"),
        (f"postgresql://me:{SECRET}@localhost:port/app_test", "SettingsError: 1 invalid setting"),
    ],
)
def test_passwords_are_nowhere_in_the_output(project, url, words):
    """Neither in messages, nor in tracebacks with local variables, nor in the header."""
    project.database(url)
    outcome = project.run(
        """
        from dataflow.testing.tdd_support import get_database_manager

        async def test_context(tdd_test_context): pass
        def test_url(tdd_database_url): pass
        async def test_by_hand():
            await get_database_manager().initialize()
        """,
        "-vv",
        "--showlocals",
        "--tb=long",
    )
    outcome.assert_outcomes(failed=1, errors=2).assert_says(words)
    outcome.assert_silent_about(SECRET, "s3cret p@ss", "s3cret")


def test_a_database_that_is_not_for_tests_is_let_in_by_name_only(project):
    project.database("postgresql://me:x@localhost:1/shop")
    project.env.setenv("DATAFLOW_TDD_ALLOW_DATABASE", "shop")
    taken_back = project.run("async def test_it(tdd_test_context): pass", "--tdd-allow-database=")
    taken_back.assert_outcomes(errors=1).assert_says("NotATestDatabase: the database 'shop'")
    project.env.delenv("DATAFLOW_TDD_ALLOW_DATABASE")
    outcome = project.run("async def test_it(tdd_test_context): pass", "--tdd-allow-database=other, shop")
    outcome.assert_outcomes(errors=1).assert_says("ServerUnreachable: no connection to")


def test_without_binaries_the_error_lists_what_was_tried(project, tmp_path):
    (tmp_path / "empty").mkdir()
    with project.nobody_at_the_default_address() as address:
        outcome = project.run(
            "async def test_it(tdd_test_context): pass\ndef test_url(tdd_database_url): pass",
            f"--tdd-postgres-bin={tmp_path}/empty",
        )
    outcome.assert_outcomes(errors=2).assert_says(
        "no PostgreSQL server can be used; tried:",
        f"{address} (the default address): connection refused",
        "embedded:",
        f"{tmp_path}/empty",
    )


def test_settings_may_change_until_a_server_is_chosen_and_not_after(project):
    project.run(
        """
        import os
        from dataflow.testing.tdd_support import get_database_manager, teardown_tdd_infrastructure

        async def test_before(monkeypatch, request):
            os.environ["DATAFLOW_TDD_POOL_SIZE"] = "4"
            request.getfixturevalue("tdd_runtime")
            await get_database_manager().initialize()
            assert get_database_manager().connection_pool.get_max_size() == 4
            os.environ["DATAFLOW_TDD_POOL_SIZE"] = "6"

        async def test_after():
            await get_database_manager().initialize()
            assert get_database_manager().connection_pool.get_max_size() == 4
            await teardown_tdd_infrastructure()
            await get_database_manager().initialize()
            assert get_database_manager().connection_pool.get_max_size() == 6
        """
    ).assert_outcomes(passed=2)
