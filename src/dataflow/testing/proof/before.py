"""Transactions that were open when a test began, and were committed while it ran."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from dataflow.testing.proof.horizon import Window
from dataflow.testing.reset.log import Written

if TYPE_CHECKING:
    import psycopg

# The snapshot of the test does not name their subtransactions, but the end of each tells them. That of a prepared
# one is written by another session, in no transaction, and begins with the number of the transaction.
_ENDS = r"""
SELECT number, description
  FROM {schema}.pg_get_wal_records_info(%(since)s, %(up_to)s),
       LATERAL (SELECT coalesce(substring(description FROM '^(\d+): '), xid::text)::bigint) AS its (number)
 WHERE resource_manager = 'Transaction' AND number = ANY (%(numbers)s)
"""
_ELSEWHERE = """
SELECT DISTINCT xid::text::bigint FROM {schema}.pg_get_wal_block_info(%(since)s, %(up_to)s, false)
 WHERE reldatabase <> %(database)s AND xid::text::bigint = ANY (%(numbers)s)
"""
_SUBTRANSACTIONS = re.compile(r"subxacts: ([\d ]+)")

OPEN_BEFORE = "a transaction that was open when the test began was committed while it ran"


class Before:
    """:param schema: of pg_walinspect, as SQL. :param read: what was read of the log, from before the test on.

    :ivar parts: numbers of the subtransactions of these transactions.
    """

    def __init__(self, connection: psycopg.Connection, schema: str, window: Window, read: Written) -> None:
        self._connection = connection
        self._schema = schema
        self._read = read
        self._parts = {number: {number} for number in window.open_before}
        if self._parts:
            values = {
                "since": read.since,  # the record may have been written before the horizon was asked
                "up_to": read.up_to,
                "numbers": list(window.open_before),
            }
            for number, description in self._rows(_ENDS, values):
                if found := _SUBTRANSACTIONS.search(str(description or "")):
                    self._parts[int(str(number))] |= set(map(int, found[1].split()))

    @property
    def parts(self) -> frozenset[int]:
        return frozenset(number for parts in self._parts.values() for number in parts)

    def unexplained(self, database: int) -> bool:
        """Of one of them nobody can tell where it wrote.

        :param database: oid of that which the test has; what they wrote there was looked at.
        """
        known = {record.xid for record in self._read.records}
        if unknown := [parts for parts in self._parts.values() if not parts & known]:
            known |= self.elsewhere(database, [number for parts in unknown for number in parts])
        return not all(parts & known for parts in unknown)

    def elsewhere(self, database: int, numbers: Collection[int]) -> set[int]:
        """Those of these transactions that wrote to another database, and so wrote nothing to this one."""
        values = {
            "since": self._read.since,
            "up_to": self._read.up_to,
            "database": database,
            "numbers": list(numbers),
        }
        return {int(str(number)) for (number,) in self._rows(_ELSEWHERE, values)}

    def _rows(self, query: str, values: Mapping[str, object]) -> list[tuple[object, ...]]:
        return self._connection.execute(query.format(schema=self._schema).encode(), values).fetchall()
