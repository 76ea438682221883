"""Settings: precedence, profiles, validation, and what is shown of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SettingsError
from dataflow.testing.options import OPTIONS
from dataflow.testing.settings import CI_VARIABLES, Settings, Sources, given, given_mode, resolve


def test_the_default_values_are_those_of_the_guide() -> None:
    settings = resolve(Sources())
    assert (settings.pool_size, settings.pool_max_overflow, settings.pool_timeout, settings.timeout) == (
        5,
        3,
        10,
        30,
    )
    assert settings.mode is None
    assert settings.database_url is None
    assert (settings.leaks, settings.slow, settings.memory_threshold) == ("warn", 100, 0)
    assert set(settings.origins.values()) == {"default", "pool size + overflow"}


def test_a_container_gets_the_guides_smaller_numbers() -> None:
    settings = resolve(Sources(in_container=True))
    assert (settings.pool_size, settings.pool_max_overflow, settings.pool_timeout, settings.timeout) == (
        2,
        1,
        5,
        10,
    )
    assert settings.explain("timeout") == "timeout 10.0 (container profile)"


@pytest.mark.parametrize("variable", CI_VARIABLES)
def test_each_ci_variable_gives_the_ci_profile_also_in_a_container(variable: str) -> None:
    settings = resolve(Sources(environment={variable: "true"}, in_container=True))
    assert (settings.pool_size, settings.timeout, settings.max_connections) == (3, 15, 10)
    assert settings.pool_max_overflow == 1  # CI has no number of its own for this one
    assert settings.server_idle == 0
    assert settings.explain("pool_size") == "pool_size 3 (CI profile)"
    assert settings.profiles == ("CI", "container")


@pytest.mark.parametrize("word", ["", "false", "0", "False", "no"])
def test_a_ci_variable_that_says_no_is_no_ci(word: str) -> None:
    assert resolve(Sources(environment={"CI": word})).pool_size == 5


def test_command_line_before_environment_before_ini_before_profile() -> None:
    places = [
        ("command_line", "pool_size", "1", "--tdd-pool-size"),
        ("environment", "DATAFLOW_TDD_POOL_SIZE", "2", "DATAFLOW_TDD_POOL_SIZE"),
        ("ini", "pool_size", "4", "ini option tdd_pool_size"),
    ]
    for first in range(3):
        given = {place: {key: value} for place, key, value, _ in places[first:]}
        given.setdefault("environment", {}).update({"CI": "1"})
        settings = resolve(Sources(**given))
        assert settings.pool_size == int(places[first][2])
        assert settings.origins["pool_size"] == places[first][3]


@pytest.mark.parametrize("place", ["environment", "ini"])
def test_an_empty_value_means_not_given(place: str) -> None:
    """`DATAFLOW_TDD_TIMEOUT= pytest` is how a shell unsets a variable for one command."""
    key = {"environment": "DATAFLOW_TDD_TIMEOUT", "ini": "timeout"}[place]
    settings = resolve(Sources(**{place: {key: ""}}))
    assert (settings.timeout, settings.origins["timeout"]) == (30, "default")


def test_an_empty_value_on_the_command_line_takes_back_what_the_environment_says() -> None:
    environment = {"DATAFLOW_TDD_ALLOW_DATABASE": "shop", "DATAFLOW_TDD_TIMEOUT": "7", "DATAFLOW_TDD_MODE": "no"}
    taken_back = {"allow_database": "", "timeout": "", "mode": ""}
    settings = resolve(Sources(command_line=taken_back, environment=environment))
    assert (settings.allow_database, settings.timeout, settings.mode) == (frozenset(), 30.0, None)
    assert settings.origins["timeout"] == "default"


def test_zero_is_a_value() -> None:
    settings = resolve(
        Sources(environment={"DATAFLOW_TDD_SERVER_IDLE": "0", "DATAFLOW_TDD_POOL_MAX_OVERFLOW": "0"})
    )
    assert (settings.server_idle, settings.pool_max_overflow, settings.max_connections) == (0, 0, 5)


def test_all_violations_are_told_at_once_with_their_origin() -> None:
    environment = {
        "DATAFLOW_TDD_MODE": "maybe",
        "TEST_DATABASE_URL": "mysql://me:hunter2@h/x",
        "DATAFLOW_TDD_POOL_SIZE": "0",
        "DATAFLOW_TDD_TIMEOUT": "inf",
        "DATAFLOW_TDD_MAX_CONNECTIONS": "many",
        "DATAFLOW_TDD_CACHE_DIR": "relative/path",
    }
    with pytest.raises(SettingsError) as caught:
        resolve(Sources(command_line={"leaks": "never"}, environment=environment, ini={"slow": "-1"}))
    assert caught.value.violations == (
        "DATAFLOW_TDD_MODE 'maybe': it must be true, 1, yes or on; or false, 0, no or off",
        "TEST_DATABASE_URL: it must be a PostgreSQL URL such as postgresql://user:password@host:5432/name_test: "
        "it must begin with postgresql://, not 'mysql'",
        "DATAFLOW_TDD_POOL_SIZE '0': it must be a whole number from 1 to 10000",
        "DATAFLOW_TDD_TIMEOUT 'inf': it must be a number of seconds, more than 0",
        "DATAFLOW_TDD_MAX_CONNECTIONS 'many': it must be a whole number from 1 to 10000",
        "--tdd-leaks 'never': it must be one of error, warn, ignore",
        "ini option tdd_slow '-1': it must be a number of ms (0 switches it off)",
        "DATAFLOW_TDD_CACHE_DIR 'relative/path': it must be an absolute path",
    )
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith("8 invalid settings:\n  - DATAFLOW_TDD_MODE")


def test_one_violation_is_said_in_the_singular() -> None:
    with pytest.raises(SettingsError, match=r"^1 invalid setting:\n  - "):
        resolve(Sources(environment={"DATAFLOW_TDD_SLOW": "x"}))


def test_pool_and_overflow_stay_within_max_connections() -> None:
    settings = resolve(Sources(environment={"DATAFLOW_TDD_POOL_SIZE": "8", "DATAFLOW_TDD_MAX_CONNECTIONS": "6"}))
    assert (settings.pool_max_size, settings.max_beside_pool) == (6, 0)
    assert (
        settings.explain("pool_size") == "pool_size 8, limited to 6 by max_connections (DATAFLOW_TDD_POOL_SIZE)"
    )
    unlimited = resolve(Sources())
    assert (unlimited.pool_max_size, unlimited.max_beside_pool, unlimited.max_connections) == (5, 3, 8)


def test_values_are_parsed_to_what_they_mean() -> None:
    settings = resolve(
        Sources(
            environment={
                "TEST_DATABASE_URL": "postgresql://u:p@h:1/a_test",
                "DATAFLOW_TDD_ALLOW_DATABASE": " shop, other ,",
                "DATAFLOW_TDD_CACHE_DIR": "~/x",
                "DATAFLOW_TDD_LEAKS": " ERROR ",
            }
        )
    )
    assert settings.database_url == Dsn("h", 1, "u", "p", "a_test")
    assert settings.allow_database == {"shop", "other"}
    assert settings.cache_dir == Path("~/x").expanduser()
    assert settings.leaks == "error"
    assert settings.explain("allow_database") == "allow_database other,shop (DATAFLOW_TDD_ALLOW_DATABASE)"
    assert settings.explain("postgres_bin") == "postgres_bin unset (default)"


def test_secrets_are_shown_nowhere() -> None:
    sources = Sources(
        command_line={"database_url": "postgresql://u:hunter2@h/a_test"},
        environment={"TEST_DATABASE_URL": "postgresql://u:hunter3@h/a_test"},
        ini={"database_url": "postgresql://u:hunter4@h/a_test"},
    )
    shown = f"{sources!r} {sources} {resolve(sources)!r} {resolve(sources)}"
    assert "hunter" not in shown
    assert "database_url postgresql://u:***@h:5432/a_test (--tdd-database-url)" in shown


def test_settings_are_frozen_and_name_each_option_once() -> None:
    settings = resolve(Sources())
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.pool_size = 6  # type: ignore[misc]
    names = [field.name for field in dataclasses.fields(Settings)]
    assert names == [*(option.name for option in OPTIONS), "profiles", "unknown", "origins"]
    assert [line.split()[0] for line in str(settings).splitlines()] == [option.name for option in OPTIONS]


@pytest.mark.parametrize("word", ["true", "1", "yes", "on", "TRUE", "Yes", " oN "])
def test_each_yes_of_the_guide_in_any_case(word: str) -> None:
    assert given_mode(Sources(environment={"DATAFLOW_TDD_MODE": word})) is True


@pytest.mark.parametrize("word", ["false", "0", "no", "off", "FALSE", "Off"])
def test_each_no_in_any_case(word: str) -> None:
    assert given_mode(Sources(environment={"DATAFLOW_TDD_MODE": word})) is False


def test_the_mode_is_read_without_looking_at_other_settings() -> None:
    """A bad pool size must not keep a project from asking whether TDD mode is on."""
    assert given_mode(Sources(environment={"DATAFLOW_TDD_POOL_SIZE": "bad"})) is None
    assert given_mode(Sources(environment={"DATAFLOW_TDD_MODE": ""})) is None
    with pytest.raises(SettingsError, match="DATAFLOW_TDD_MODE 'perhaps': it must be true, 1, yes or on"):
        given_mode(Sources(environment={"DATAFLOW_TDD_MODE": "perhaps"}))


def test_the_sources_of_the_process_are_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAFLOW_TDD_POOL_SIZE", "7")
    sources = Sources.of_process()
    monkeypatch.setenv("DATAFLOW_TDD_POOL_SIZE", "9")
    assert resolve(sources).pool_size == 7
    monkeypatch.setenv("CONTAINER", "TRUE")
    assert Sources.of_process().in_container


def test_what_is_not_a_default_is_listed_by_origin() -> None:
    settings = resolve(Sources(environment={"CI": "1", "DATAFLOW_TDD_TIMEOUT": "7"}))
    assert settings.by_origin() == (
        "CI profile: pool_size 3, max_connections 10, server_idle 0.0, spares 1",
        "DATAFLOW_TDD_TIMEOUT: timeout 7.0",
    )
    assert resolve(Sources()).by_origin() == ()


def test_the_text_of_one_setting_comes_from_the_best_place_that_has_one() -> None:
    """Also of one that cannot be parsed: the doctor looks at it."""
    environment, ini = {"TEST_DATABASE_URL": "b"}, {"database_url": "c"}
    assert given("database_url", Sources({"database_url": "a"}, environment, ini)) == ("a", "--tdd-database-url")
    assert given("database_url", Sources({}, environment, ini)) == ("b", "TEST_DATABASE_URL")
    empty = {"TEST_DATABASE_URL": ""}
    assert given("database_url", Sources({}, empty, ini)) == ("c", "ini option tdd_database_url")
    assert given("database_url", Sources({"database_url": ""}, environment, ini)) == (None, "default")
    assert given("database_url", Sources()) == (None, "default")


@pytest.mark.parametrize("text", ["\uff15", "1000000000", "1_0", "+5", "1e2", ""])
def test_numbers_are_written_in_digits_and_have_a_limit(text: str) -> None:
    sources = Sources(environment={"DATAFLOW_TDD_POOL_SIZE": text})
    if text == "":
        assert resolve(sources).pool_size == 5
        return
    with pytest.raises(SettingsError, match="a whole number from 1 to 10000"):
        resolve(sources)


def test_a_number_of_seconds_is_not_read_as_python_would() -> None:
    with pytest.raises(SettingsError, match="a number of seconds"):
        resolve(Sources(environment={"DATAFLOW_TDD_TIMEOUT": "1_0"}))


def test_a_home_that_is_not_there_is_no_absolute_path() -> None:
    with pytest.raises(SettingsError, match="an absolute path"):
        resolve(Sources(environment={"DATAFLOW_TDD_CACHE_DIR": "~nobody_of_that_name/x"}))


def test_a_wrong_mode_does_not_hide_what_else_is_wrong() -> None:
    environment = {"DATAFLOW_TDD_MODE": "maybe", "DATAFLOW_TDD_POOL_SIZE": "0", "TEST_DATABASE_URL": "mysql://x"}
    with pytest.raises(SettingsError) as caught:
        given_mode(Sources(environment=environment))
    assert len(caught.value.violations) == 3


def test_variables_that_look_like_settings_and_are_none_are_told() -> None:
    settings = resolve(Sources(environment={"DATAFLOW_TDD_POOLSIZE": "9", "DATAFLOW_TDD_SLOW": "1"}))
    assert settings.by_origin() == (
        "DATAFLOW_TDD_SLOW: slow 1.0",
        "DATAFLOW_TDD_POOLSIZE is not known, and has no effect",
    )
