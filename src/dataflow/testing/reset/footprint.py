"""Which rows came and which may have gone, told from the records of the write-ahead log. Pure.

A record names the place of each row that it concerns: block and offset, together a `Tid`. A row that came in the
meantime may be deleted again without a look at anything else. A row that was there before and was deleted or
updated may still be there, if that was rolled back: that is asked later.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

# A row's place in its table: block and offset, as in the column `ctid`.
Tid = tuple[int, int]


class BlockRecord(NamedTuple):
    """One line of `pg_get_wal_block_info`: a record of the log, and one of the blocks that it concerns.

    :param shared: the relation belongs to no database. :param xid: 0 for a record of no transaction.
    """

    lsn: str
    shared: bool
    filenode: int
    block_id: int
    block: int
    xid: int
    manager: str
    kind: str
    description: str


@dataclass
class Touched:
    """What happened to one relation.

    :ivar came: places of rows that were put there. :ivar gone: places of rows that were there before and were
        deleted or updated, perhaps by a transaction that was rolled back. :ivar updated: how often it was that.
    :ivar overwritten: a place of `gone` was used again, so that its row is gone for certain.
    :ivar unplaced: rows came at places that the log does not tell.
    :ivar in_place: places of rows that were changed where they stand, in no transaction.
    :ivar counted: it is a sequence, and was advanced or set.
    :ivar strange: kinds of records that are not known here. :ivar kinds: how many of each kind there were.
    """

    came: set[Tid] = field(default_factory=set)
    gone: set[Tid] = field(default_factory=set)
    updated: int = 0
    overwritten: bool = False
    unplaced: bool = False
    in_place: set[Tid] = field(default_factory=set)
    counted: bool = False
    strange: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def changed(self) -> bool:
        return self.rows_changed or bool(self.in_place)

    @property
    def rows_changed(self) -> bool:
        """In more than what is corrected in place."""
        return bool(self.came or self.gone or self.unplaced or self.strange or self.counted)


@dataclass
class Footprint:
    """All that was written between two positions of the log.

    :ivar local: by the number of its file, each relation of the database; `shared`: each that belongs to none.
    """

    local: dict[int, Touched] = field(default_factory=dict)
    shared: dict[int, Touched] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not self.local and not self.shared


# Nothing that a query could see changes with these.
_HARMLESS = frozenset(
    {
        "Heap/LOCK",
        "Heap/HEAP_CONFIRM",
        "Heap2/LOCK_UPDATED",
        "Heap2/VISIBLE",
        "Heap2/FREEZE_PAGE",
        "Heap2/VACUUM",
        "Heap2/PRUNE",
        "Heap2/PRUNE_ON_ACCESS",
        "Heap2/PRUNE_VACUUM_SCAN",
        "Heap2/PRUNE_VACUUM_CLEANUP",
        "XLOG/FPI_FOR_HINT",
    }
)
_INSERTS = frozenset({"Heap/INSERT", "Heap/INSERT+INIT"})
_MULTI_INSERTS = frozenset({"Heap2/MULTI_INSERT", "Heap2/MULTI_INSERT+INIT"})
_DELETES = frozenset({"Heap/DELETE"})
_UPDATES = frozenset({"Heap/UPDATE", "Heap/UPDATE+INIT", "Heap/HOT_UPDATE", "Heap/HOT_UPDATE+INIT"})
_SEQUENCES = frozenset({"Sequence/LOG"})
_IN_PLACE = frozenset({"Heap/INPLACE"})

_OFFSET = re.compile(r"(?:^|, )off: (\d+)")
_OLD_OFFSET = re.compile(r"old_off: (\d+)")
_NEW_OFFSET = re.compile(r"new_off: (\d+)")
_COUNT = re.compile(r"ntuples: (\d+)")
_UNLISTED = re.compile(r"ntuples: \d+, flags: 0x[0-9A-F]+")
_OFFSETS = re.compile(r"offsets: \[([\d, ]+)\]")


def fold(records: Iterable[BlockRecord]) -> Footprint:
    """The footprint of records in the order of the log."""
    footprint = Footprint()
    for blocks in _grouped(records):
        first = blocks[0]
        side = footprint.shared if first.shared else footprint.local
        touched = side.get(first.filenode)
        if touched is None:
            touched = side[first.filenode] = Touched()
        _add(touched, blocks)
    return footprint


def _grouped(records: Iterable[BlockRecord]) -> Iterator[list[BlockRecord]]:
    """The lines of one record, which are one behind the other, for each relation that it concerns."""
    group: list[BlockRecord] = []
    for record in records:
        if group and (record.lsn, record.filenode, record.shared) != _key(group[0]):
            yield group
            group = []
        group.append(record)
    if group:
        yield group


def _key(record: BlockRecord) -> tuple[str, int, bool]:
    return record.lsn, record.filenode, record.shared


def _add(touched: Touched, blocks: list[BlockRecord]) -> None:
    record = blocks[0]
    kind = f"{record.manager}/{record.kind}"
    touched.kinds[kind] += 1
    if kind in _HARMLESS:
        return
    if kind in _SEQUENCES:
        touched.counted = True
        return
    if kind in _IN_PLACE and (offset := _OFFSET.search(record.description or "")):
        touched.in_place.add((record.block, int(offset[1])))
        return
    places = _places(kind, blocks)
    if places is None:
        # Where the record has an image of the whole page, it does not list the rows that came together.
        if kind in _MULTI_INSERTS and _UNLISTED.fullmatch(record.description or ""):
            touched.unplaced = True
        else:
            touched.strange.add(kind)
        return
    went, came = places
    old = [tid for tid in went if tid not in touched.came]
    touched.gone.update(old)
    touched.updated += len(old) if kind in _UPDATES else 0
    touched.overwritten = touched.overwritten or any(tid in touched.gone for tid in came)
    touched.came.update(came)


def _places(kind: str, blocks: list[BlockRecord]) -> tuple[list[Tid], list[Tid]] | None:
    """Where rows went, and where rows came; None when the record is of no known kind or form."""
    record = blocks[0]
    text = record.description or ""
    if kind in _INSERTS:
        offset = _OFFSET.search(text)
        return None if offset is None else ([], [(record.block, int(offset[1]))])
    if kind in _MULTI_INSERTS:
        offsets = _inserted_offsets(kind, text)
        return None if offsets is None else ([], [(record.block, offset) for offset in offsets])
    if kind in _DELETES:
        offset = _OFFSET.search(text)
        return None if offset is None else ([(record.block, int(offset[1]))], [])
    if kind in _UPDATES:
        old, new = _OLD_OFFSET.search(text), _NEW_OFFSET.search(text)
        if old is None or new is None:
            return None
        # Block 0 of the record has the new row; block 1 the old one, unless both are in the same.
        return [(blocks[-1].block, int(old[1]))], [(record.block, int(new[1]))]
    return None


def _inserted_offsets(kind: str, text: str) -> list[int] | None:
    count, listed = _COUNT.search(text), _OFFSETS.search(text)
    if count is None:
        return None
    if kind.endswith("+INIT"):  # the page was empty, so the rows are the first ones on it
        return list(range(1, int(count[1]) + 1))
    if listed is None:
        return None
    offsets = [int(offset) for offset in listed[1].split(",")]
    return offsets if len(offsets) == int(count[1]) else None
