"""What committed transactions wrote, told from the records of the log, and in words."""

from __future__ import annotations

import itertools

import pytest

from dataflow.testing.proof.escape import Escape, PutBack, Verdict, row_changes, written
from dataflow.testing.reset.footprint import BlockRecord

INSERT = "off: 1, flags: 0x00"
TABLE, OTHER = 16_400, 16_500
_positions = itertools.count(1)


def record(
    xid: int, kind: str, description: str = INSERT, *, block: int = 0, file: int = TABLE, shared: bool = False
):
    return BlockRecord(f"0/{next(_positions):X}", shared, file, 0, block, xid, "Heap", kind, description)


def update(xid: int, old: int, new: int) -> BlockRecord:
    return record(
        xid, "HOT_UPDATE", f"old_xmax: {xid}, old_off: {old}, old_infobits: [], new_xmax: 0, new_off: {new}"
    )


def test_only_what_was_committed_counts_and_only_in_the_database() -> None:
    found = written(
        [
            record(7, "INSERT", "off: 1, flags: 0x00", block=3),
            record(8, "INSERT", "off: 2, flags: 0x00", block=9),
            record(7, "INSERT", "off: 3, flags: 0x00", block=5),
            record(7, "INSERT", shared=True, file=1260),
            record(9, "DELETE", "xmax: 9, off: 4, infobits: [], flags: 0x00", file=OTHER),
        ],
        frozenset({7, 9}),
    )
    assert set(found) == {TABLE, OTHER}
    assert found[TABLE].blocks == (3, 5)
    assert found[TABLE].touched.came == {(3, 1), (5, 3)}
    assert found[OTHER].touched.gone == {(0, 4)}


@pytest.mark.parametrize(
    ("records", "present", "words"),
    [
        ([record(7, "INSERT")], 1, "t: 1 row added"),
        ([record(7, "INSERT")], 0, None),
        ([record(7, "INSERT"), update(7, 1, 2)], 1, "t: 1 row added"),
        ([update(7, 1, 2)], 1, "t: 1 row updated"),
        ([update(7, 1, 2), update(7, 2, 3)], 1, "t: 1 row updated"),
        ([record(7, "DELETE", "xmax: 7, off: 1, infobits: [], flags: 0x00")], 0, "t: 1 row deleted"),
        (
            [update(7, 1, 2), record(7, "DELETE", "xmax: 7, off: 2, infobits: [], flags: 0x00")],
            0,
            "t: 1 row deleted",
        ),
        ([record(7, "INSERT", "off: 5, flags: 0x00"), update(7, 1, 2)], 2, "t: 1 row added, 1 row updated"),
    ],
)
def test_rows_in_words(records, present, words) -> None:
    assert row_changes("t", written(records, frozenset({7}))[TABLE].touched, present) == words


@pytest.mark.parametrize(
    ("verdict", "restored"),
    [
        (Verdict(), True),
        (Verdict("the log cannot be read"), False),
        (Verdict(escape=Escape(("t: 1 row added",), (), PutBack.UNDONE)), True),
        (Verdict(escape=Escape(("t: 1 row added",), (), PutBack.REPLACED)), True),
        (Verdict(escape=Escape(("t: 1 row added",), (), PutBack.STAYS)), False),
    ],
)
def test_whether_the_database_is_as_before(verdict: Verdict, restored: bool) -> None:
    assert verdict.restored is restored
