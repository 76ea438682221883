"""Records of the log, as PostgreSQL 16, 17 and 18 write them, and what they say about rows."""

from __future__ import annotations

import pytest

from dataflow.testing.reset.footprint import BlockRecord, Touched, fold

TABLE = 16393


def record(
    kind: str,
    description: str | None,
    block: int = 0,
    *,
    block_id: int = 0,
    lsn: str = "0/1",
    shared: bool = False,
) -> BlockRecord:
    manager, _, name = kind.partition("/")
    return BlockRecord(lsn, shared, TABLE, block_id, block, 7, manager, name, description)  # type: ignore[arg-type]


def touched(*records: BlockRecord) -> Touched:
    return fold(records).local[TABLE]


@pytest.mark.parametrize(
    "text",
    [
        "off: 11, flags: 0x04",  # PostgreSQL 16 to 18
        "off: 11",
        "off 11 flags 0x04".replace("off ", "off: "),
    ],
)
def test_an_inserted_row_came(text: str) -> None:
    assert touched(record("Heap/INSERT", text, block=3)).came == {(3, 11)}
    assert touched(record("Heap/INSERT+INIT", text, block=3)).came == {(3, 11)}


def test_rows_inserted_together_came() -> None:
    text = "ntuples: 3, flags: 0x02, offsets: [17, 18, 40]"
    assert touched(record("Heap2/MULTI_INSERT", text, block=2)).came == {(2, 17), (2, 18), (2, 40)}


def test_rows_inserted_together_on_a_new_page_are_its_first_ones() -> None:
    text = "ntuples: 3, flags: 0x02"
    assert touched(record("Heap2/MULTI_INSERT+INIT", text, block=9)).came == {(9, 1), (9, 2), (9, 3)}


@pytest.mark.parametrize(
    "text",
    [
        "xmax: 760, off: 2, infobits: [KEYS_UPDATED], flags: 0x00",  # PostgreSQL 17 and 18
        "off: 2, infobits: [KEYS_UPDATED], flags: 0x00, xmax: 760",
    ],
)
def test_a_deleted_row_may_have_gone(text: str) -> None:
    found = touched(record("Heap/DELETE", text, block=5))
    assert (found.gone, found.came, found.overwritten) == ({(5, 2)}, set(), False)


def test_an_updated_row_may_have_gone_and_its_new_version_came() -> None:
    text = "old_xmax: 759, old_off: 1, old_infobits: [], flags: 0x20, new_xmax: 0, new_off: 12"
    found = touched(record("Heap/HOT_UPDATE", text, block=4))
    assert (found.gone, found.came) == ({(4, 1)}, {(4, 12)})


def test_the_old_version_of_a_row_that_moved_to_another_page_is_in_the_second_block() -> None:
    text = "old_xmax: 759, old_off: 1, old_infobits: [], flags: 0x00, new_xmax: 0, new_off: 12"
    blocks = record("Heap/UPDATE", text, block=8), record("Heap/UPDATE", text, block=3, block_id=1)
    found = touched(*blocks)
    assert (found.gone, found.came) == ({(3, 1)}, {(8, 12)})
    assert found.kinds == {"Heap/UPDATE": 1}


def test_a_row_that_came_and_was_deleted_again_was_never_one_of_the_template() -> None:
    delete = "xmax: 760, off: 11, infobits: [], flags: 0x00"
    found = touched(record("Heap/INSERT", "off: 11, flags: 0x00"), record("Heap/DELETE", delete, lsn="0/2"))
    assert (found.gone, found.came) == (set(), {(0, 11)})


def test_a_place_that_is_used_again_says_that_its_row_is_gone_for_certain() -> None:
    delete = "xmax: 760, off: 2, infobits: [], flags: 0x00"
    records = record("Heap/DELETE", delete), record("Heap/INSERT", "off: 2, flags: 0x00", lsn="0/2")
    assert touched(*records).overwritten


@pytest.mark.parametrize(
    "kind",
    [
        "Heap/LOCK",
        "Heap/HEAP_CONFIRM",
        "Heap2/LOCK_UPDATED",
        "Heap2/PRUNE",  # 16
        "Heap2/VACUUM",  # 16
        "Heap2/FREEZE_PAGE",  # 16
        "Heap2/PRUNE_ON_ACCESS",  # 17 and later
        "Heap2/PRUNE_VACUUM_SCAN",
        "Heap2/PRUNE_VACUUM_CLEANUP",
        "Heap2/VISIBLE",
        "XLOG/FPI_FOR_HINT",
    ],
)
def test_housekeeping_and_locks_change_nothing(kind: str) -> None:
    found = touched(record(kind, "anything"))
    assert not found.changed
    assert found.kinds == {kind: 1}


@pytest.mark.parametrize(
    "kind", ["Heap/SOMETHING_NEW", "Heap2/REWRITE", "XLOG/FPI", "Generic/Generic", "Custom/X"]
)
def test_a_kind_that_is_not_known_is_strange(kind: str) -> None:
    assert touched(record(kind, "off: 1")).strange == {kind}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("Heap/INSERT", "offset 11"),
        ("Heap/INSERT", ""),
        ("Heap/INSERT", None),
        ("Heap/DELETE", "old_off: 3"),
        ("Heap/UPDATE", "old_off: 3"),
        ("Heap/HOT_UPDATE", "new_off: 3"),
        ("Heap2/MULTI_INSERT", "ntuples: 3, flags: 0x02, offsets: [1, 2]"),
        ("Heap2/MULTI_INSERT", "offsets: [1, 2]"),
        ("Heap2/MULTI_INSERT+INIT", "flags: 0x02"),
        ("Heap/INPLACE", "inval msgs: relcache 5"),
    ],
)
def test_a_text_that_cannot_be_read_is_strange(kind: str, text: str | None) -> None:
    found = touched(record(kind, text))
    assert found.strange == {kind}
    assert found.changed


def test_rows_that_came_together_with_an_image_of_their_page_have_no_places() -> None:
    found = touched(record("Heap2/MULTI_INSERT", "ntuples: 2, flags: 0x02"))
    assert (found.unplaced, found.came, found.strange) == (True, set(), set())
    assert found.rows_changed


def test_a_change_in_place_is_told_apart() -> None:
    found = touched(record("Heap/INPLACE", "off: 7, inval msgs: catcache 55 relcache 5", block=1))
    assert (found.in_place, found.changed, found.rows_changed) == ({(1, 7)}, True, False)


def test_a_sequence_that_was_advanced_is_counted() -> None:
    found = touched(record("Sequence/LOG", "rel 1663/16388/16400"))
    assert found.counted
    assert found.changed


def test_shared_relations_are_apart_from_those_of_the_database() -> None:
    footprint = fold([record("Heap/INSERT", "off: 1, flags: 0x00", shared=True)])
    assert not footprint.local
    assert footprint.shared[TABLE].came == {(0, 1)}


def test_nothing_written_is_an_empty_footprint() -> None:
    assert fold([]).empty
