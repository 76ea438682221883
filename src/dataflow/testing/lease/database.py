"""One database of this process, and what is known of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dataflow.testing.reset.restore import Restorer
from dataflow.testing.reset.shape import Shape

if TYPE_CHECKING:
    import psycopg

_NO_SHAPE = Shape({}, {}, {}, {})


@dataclass(eq=False)
class Database:
    """A copy of the template, and our own connection to it; without one it is dropped after its test.

    :ivar shape: with the files that it has now. :ivar since: the position of the log from which on it may have
        changed. :ivar visits: how many sessions had ever been in it at that position; -1: not known.
    :ivar seen: when that was found out, by the monotonic clock, in seconds.
    :ivar restorer: puts it back.
    :ivar litter: by relation, how many dead rows we left since it was last cleaned.
    """

    name: str
    oid: int
    connection: psycopg.Connection | None
    shape: Shape = _NO_SHAPE
    since: str = ""
    visits: int = -1
    seen: float = 0.0
    restorer: Restorer | None = None
    litter: Counter[str] = field(default_factory=Counter)

    @property
    def keep(self) -> bool:
        return self.connection is not None

    @property
    def usable(self) -> bool:
        return self.connection is not None and not self.connection.closed and not self.connection.broken

    @property
    def own_pid(self) -> int:
        return self.connection.info.backend_pid if self.connection is not None else 0

    @property
    def session(self) -> psycopg.Connection:
        assert self.connection is not None, "only a database that is kept is put back"
        return self.connection

    def close(self) -> None:
        if self.connection is not None and not self.connection.closed:
            self.connection.close()
