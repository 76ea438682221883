"""Names that follow from what a template is made from, and the note that it carries."""

from __future__ import annotations

import re

import pytest

from dataflow.testing.template.naming import Note, building_name, key_of, template_key, template_name

FACTS = {"server_version": 180006, "lock_space": "postgres", "owner": "tests"}
NOTE = Note("f" * 64, "schema.sql", 180006, "postgres", 1.5, 1.25, 30.0)


def test_a_key_changes_with_each_fact_and_with_nothing_else() -> None:
    key = template_key("abc", **FACTS)
    assert re.fullmatch("[0-9a-f]{16}", key)
    assert template_key("abc", **FACTS) == key
    others = {
        template_key("abd", **FACTS),
        template_key("abc", **FACTS | {"server_version": 180007}),
        template_key("abc", **FACTS | {"lock_space": "other"}),
        template_key("abc", **FACTS | {"owner": "other"}),
    }
    assert len(others | {key}) == 5


def test_finished_and_half_built_templates_are_told_by_name() -> None:
    key = template_key("abc", **FACTS)
    assert template_name(key) == f"tdd_template_{key}"
    assert building_name(key).startswith(f"tdd_building_{key}")
    assert key_of(template_name(key)) == key_of(building_name(key)) == key


def test_two_builders_of_one_template_never_meet_in_one_database() -> None:
    assert building_name("0" * 16) != building_name("0" * 16)


@pytest.mark.parametrize(
    "name", ["tdd_0123456789ab", "tdd_template_", "tdd_template_xyz", "x_tdd_template_" + "0" * 16]
)
def test_other_databases_have_no_key(name: str) -> None:
    assert key_of(name) is None


def test_a_note_is_read_as_it_was_written() -> None:
    assert Note.load(NOTE.dump()) == NOTE


@pytest.mark.parametrize(
    "comment",
    [
        None,
        "",
        "somebody's own words",
        "[]",
        "{}",
        "null",
        '{"format": 1}',
        NOTE.dump().replace('"format": 1', '"format": 2'),
        NOTE.dump().replace("1.5", '"yesterday"'),
        NOTE.dump().replace('"used"', '"unknown"'),
    ],
)
def test_anything_else_is_no_note(comment: str | None) -> None:
    assert Note.load(comment) is None
