"""What had been committed when a test began, and what was committed since. Pure: questions, and their answers."""

from __future__ import annotations

from typing import NamedTuple

# In this order. The snapshot is that of the whole statement, and does not tell the youngest transactions that are
# under way from those to come; the age of an old number is counted from the next one that there will be. Whatever
# the snapshot does not show has the record of its end behind the position, or had its number by then, and so is
# known as one that was open before.
_OLDEST = 3
HORIZON = (
    "SELECT pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_snapshot(), "
    f"pg_catalog.age('{_OLDEST}'::pg_catalog.xid)"
)

# Of the transactions that were under way, and of those that began since, the ones that are committed now. Their
# numbers become integers by way of text, there is no other.
_COMMITTED = """
(SELECT pg_catalog.array_agg(id) FROM (
  SELECT xip::pg_catalog.text::pg_catalog.int8 AS id FROM pg_catalog.pg_snapshot_xip({0}) AS xip
  UNION ALL
  SELECT pg_catalog.generate_series(
         pg_catalog.pg_snapshot_xmax({0})::pg_catalog.text::pg_catalog.int8,
         pg_catalog.int8mi(pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
           ::pg_catalog.text::pg_catalog.int8, 1))
) AS those
 WHERE pg_catalog.texteq(pg_catalog.pg_xact_status(id::pg_catalog.text::pg_catalog.xid8), 'committed'))
"""
# Records of the log have these of the number of a transaction.
LOW_BITS = (1 << 32) - 1


class Horizon(NamedTuple):
    """The end of what had been committed.

    :param position: of the log. :param snapshot: as the server writes it: ``xmin:xmax:xip,xip``.
    :param first_new: the lowest number of a transaction that had not begun.
    """

    position: str
    snapshot: str
    first_new: int

    @property
    def question(self) -> str:
        """What was committed since?"""
        return committed_since(f"'{self.snapshot}'::pg_catalog.pg_snapshot")


class Window(NamedTuple):
    """A test, as far as others are concerned.

    :param committed: numbers of the transactions that were committed meanwhile, on the whole server; None: not
        known.
    :param began: when, by the monotonic clock, in seconds. :param own: process ids of the sessions whose
        transactions are rolled back.
    """

    horizon: Horizon
    committed: tuple[int, ...] | None
    began: float
    own: tuple[int, ...]

    @property
    def numbers(self) -> frozenset[int]:
        """As records of the log have them."""
        return frozenset(number & LOW_BITS for number in self.committed or ())

    @property
    def open_before(self) -> frozenset[int]:
        first = self.horizon.first_new
        return frozenset(number & LOW_BITS for number in self.committed or () if number < first)


def committed_since(snapshot: str) -> str:
    """A query, and a value. :param snapshot: SQL."""
    return _COMMITTED.format(snapshot)


def read_horizon(position: str | None, snapshot: str | None, age: str | None) -> Horizon:
    """From the answer to `HORIZON`."""
    following = int(str(snapshot).split(":")[1])
    beyond = (_OLDEST + int(str(age)) - following) & LOW_BITS
    return Horizon(str(position), str(snapshot), following + beyond)


def numbers(answer: str | None) -> tuple[int, ...]:
    """Numbers of transactions, as the server writes an array of them."""
    return tuple(map(int, answer.strip("{}").split(","))) if answer else ()
