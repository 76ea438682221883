"""What a schema source is. One file per kind: `files`, `function`, `command`; `steps` puts them in a row."""

from __future__ import annotations

from typing import Protocol

from dataflow.testing.dsn import Dsn


class SchemaSource(Protocol):
    """How a schema, and its seed data, comes to be."""

    def fingerprint(self) -> str:
        """A hex digest that changes when anything that the schema is made from changes.

        :raises SchemaFailed: what it is made from is not there; everything missing is listed.
        """

    def describe(self) -> str:
        """A few words for people: ``schema.sql, seeds/ (3 files)``. Never fails, shows no password."""

    def apply(self, database: Dsn, limit_s: float) -> None:
        """Build the schema in an empty database, which is given up when this fails. All or nothing is not asked
        for; to leave no connection behind is.

        :param limit_s: seconds after which it gives up.
        :raises SchemaFailed: with what the server, or the program, said.
        :raises ServerError: the server could not be reached.
        """
