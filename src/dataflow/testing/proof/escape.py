"""What was committed while a test ran, as a value and in words. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

from dataflow.testing.reset.footprint import BlockRecord, Touched, fold


class PutBack(enum.Enum):
    """What became of it."""

    UNDONE = "it was undone"
    REPLACED = (
        "the database was replaced by a fresh copy of the template, without what session fixtures committed"
    )
    LATER = "the database is replaced by a fresh copy of the template before the next class of tests"
    STAYS = "it stays, and later tests may see it"


class Escape(NamedTuple):
    """:param changes: in which tables how many rows, or what of the schema; in words.
    :param sessions: who was in the database besides the test, in words. :param put_back: what became of it.
    :param why: it stays, if it does.
    """

    changes: tuple[str, ...]
    sessions: tuple[str, ...]
    put_back: PutBack
    why: str | None = None


class Verdict(NamedTuple):
    """Of one test. Nothing: it is proven that nothing was committed in its database.

    :param unproven: why that cannot be said. :param escape: something was.
    """

    unproven: str | None = None
    escape: Escape | None = None

    @property
    def restored(self) -> bool:
        """The database is for certain as it was before the test."""
        stays = self.escape is not None and self.escape.put_back in (PutBack.STAYS, PutBack.LATER)
        return self.unproven is None and not stays


class File(NamedTuple):
    """What committed transactions wrote to one relation, known by the number of its file.

    :param blocks: the first and the last one that they wrote to.
    """

    touched: Touched
    blocks: tuple[int, int]


def written(records: Iterable[BlockRecord], committed: frozenset[int]) -> dict[int, File]:
    """What these transactions wrote in one database, by the number of the file.

    :param committed: numbers of transactions as records have them, of 32 bits.
    """
    theirs = [record for record in records if record.xid in committed and not record.shared]
    blocks: dict[int, tuple[int, int]] = {}
    for record in theirs:
        first, last = blocks.get(record.filenode, (record.block, record.block))
        blocks[record.filenode] = min(first, record.block), max(last, record.block)
    return {file: File(touched, blocks[file]) for file, touched in fold(theirs).local.items()}


def row_changes(name: str, touched: Touched, present: int) -> str | None:
    """In words; None when nothing is left of it.

    :param present: how many rows are there now that they wrote.
    """
    updated = min(touched.updated, len(touched.gone), present)
    counts = {"added": present - updated, "updated": updated, "deleted": len(touched.gone) - updated}
    parts = [f"{count} row{'s' if count != 1 else ''} {what}" for what, count in counts.items() if count > 0]
    return f"{name}: {', '.join(parts)}" if parts else None
