"""A database as somebody has left it, in the place of a template: what a test suite has put there by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed
from dataflow.testing.template import databases
from dataflow.testing.template.building import set_sequences
from dataflow.testing.template.session import connect, explained

if TYPE_CHECKING:
    from dataflow.testing.template.source import SchemaSource


class AsLeft:
    """A schema source that need not be built: its template is there. Nobody may enter it any more.

    :param name: of the database. :param source: what it was made from.
    """

    def __init__(self, name: str, source: SchemaSource) -> None:
        self.name = name
        self._source = source

    def fingerprint(self) -> str:
        return f"as left: {self.name}"

    def describe(self) -> str:
        return f"{self._source.describe()}, with what was added since"

    def apply(self, database: Dsn, limit_s: float) -> None:
        raise SchemaFailed(f"{self.name} can be copied, not built anew", remedy="run again")


def settle(admin: Dsn, name: str, limit_s: float) -> None:
    """Make a database one that can be copied: whoever is in it is sent away, and what depends on how its rows
    came is made equal, as for a template.

    :raises ServerError: somebody does not go, or the server refuses.
    """
    with connect(admin.with_database(name), statement_limit_s=limit_s) as inside, explained(f"settle {name}"):
        databases.end_visitors(inside, name)
        set_sequences(inside)
        inside.execute("VACUUM (FREEZE, ANALYZE)")
