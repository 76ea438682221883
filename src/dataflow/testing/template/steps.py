"""Several sources, one after the other: the schema from one, seed data from the next."""

from __future__ import annotations

import time

from dataflow.testing.dsn import Dsn
from dataflow.testing.template.inputs import fingerprint
from dataflow.testing.template.source import SchemaSource


class Steps:
    """One source after the other, in one database, within one limit."""

    def __init__(self, *sources: SchemaSource) -> None:
        self._sources = sources

    def fingerprint(self) -> str:
        """
        :raises SchemaFailed: what the first source that fails says.
        """
        return fingerprint("steps", *(source.fingerprint().encode() for source in self._sources))

    def describe(self) -> str:
        return ", then ".join(source.describe() for source in self._sources) or "no schema"

    def apply(self, database: Dsn, limit_s: float) -> None:
        """
        :raises SchemaFailed: what the source that failed says; those after it are not tried.
        """
        deadline = time.monotonic() + limit_s
        for source in self._sources:
            source.apply(database, max(0.0, deadline - time.monotonic()))


EMPTY = Steps()
