"""The table of options."""

from __future__ import annotations

import pytest

from dataflow.testing.options import OPTIONS

BY_NAME = {option.name: option for option in OPTIONS}


def test_names_follow_from_each_other() -> None:
    """Who knows one name of an option knows all; only the guide's TEST_DATABASE_URL goes its own way."""
    for option in OPTIONS:
        assert option.ini == f"tdd_{option.name}"
        assert option.flag == "--tdd-" + option.name.replace("_", "-")
        if option.name != "database_url":
            assert option.environment == f"DATAFLOW_TDD_{option.name.upper()}"
    assert BY_NAME["database_url"].environment == "TEST_DATABASE_URL"
    assert len(BY_NAME) == len(OPTIONS)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("pool_size", {"1": 1, " 20 ": 20}, ["0", "-1", "1.5", "x", "٣x", "1e3"]),
        ("pool_max_overflow", {"0": 0, "3": 3}, ["-1", "", "x"]),
        ("timeout", {"0.5": 0.5, "15": 15.0, "1e2": 100.0}, ["0", "-1", "nan", "inf", "x"]),
        ("slow", {"0": 0.0, "20": 20.0}, ["-1", "nan", "inf", "x"]),
        ("leaks", {"warn": "warn", "Error": "error", "ignore": "ignore"}, ["", "fail"]),
        ("mode", {"on": True, "OFF": False}, ["2", "enabled", ""]),
        ("allow_database", {"a,b": {"a", "b"}, "": set()}, []),
        ("cache_dir", {}, ["x", "./x", ""]),
        ("database_url", {}, ["", "x", "mysql://h/a_test", "postgresql://h:x/a_test"]),
    ],
)
def test_values_and_what_is_refused(name: str, good: dict[str, object], bad: list[str]) -> None:
    option = BY_NAME[name]
    assert {text: option.parse(text) for text in good} == good
    for text in bad:
        with pytest.raises(ValueError, match=r"\w"):
            option.parse(text)


def test_profiles_are_within_what_may_be_given() -> None:
    for option in OPTIONS:
        for value in (option.default, option.container, option.ci):
            if isinstance(value, int | float):
                assert option.parse(str(value)) == value
