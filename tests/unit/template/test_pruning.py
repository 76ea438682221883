"""Which templates go after a build, and how times are told."""

from __future__ import annotations

import pytest

from dataflow.testing.template.databases import Database
from dataflow.testing.template.naming import Note, building_name, template_name
from dataflow.testing.template.pruning import duration, superfluous

NOW = 1_000_000_000.0
DAY = 86_400.0


def database(number: int, used_before: float, *, finished: bool = True, note: bool = True) -> Database:
    key = f"{number:016x}"
    words = Note("f", "x", 1, "postgres", NOW - used_before, NOW - used_before if finished else None)
    name = template_name(key) if finished else building_name(key)
    return Database(name, key, not finished, finished, words if note else None)


def test_the_ten_that_were_used_last_stay_however_old_they_are() -> None:
    found = [database(number, (100 + number) * DAY) for number in range(12)]
    assert superfluous(found, NOW) == (found[10].name, found[11].name)
    assert superfluous(reversed(found), NOW) == (found[10].name, found[11].name)


def test_none_that_was_used_within_a_day_goes_however_many_there_are() -> None:
    found = [database(number, 0.5 * DAY) for number in range(30)]
    old = database(99, 1.5 * DAY)
    assert superfluous([*found, old], NOW) == (old.name,)


def test_what_a_builder_left_is_offered_and_its_lock_decides() -> None:
    half_built = database(1, 0, finished=False)
    assert superfluous([half_built, database(2, 0)], NOW) == (half_built.name,)


def test_what_has_no_readable_note_is_not_ours_to_judge() -> None:
    unknown = [database(number, 100 * DAY, note=False) for number in range(20)]
    assert superfluous([*unknown, database(99, 0, finished=False, note=False)], NOW) == ()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (40, "40 s"), (119, "119 s"), (300, "5 min"), (7200, "2 h"), (12 * DAY, "12 d")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
