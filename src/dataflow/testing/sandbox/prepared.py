"""What a driver has parsed. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.statements import Script, Statement

MOST_TEXT = 4_000  # characters of a statement that are kept


class Prepared:
    """A statement that a driver has parsed.

    :ivar types: oids of its parameters, as far as they are known. :ivar script: what in it concerns transactions.
    :ivar message: that parses it in the session again, if it has no name.
    :ivar statement: the one that it is, if that concerns transactions.
    """

    __slots__ = ("message", "script", "statement", "text", "types")

    def __init__(self, message: bytes, script: Script) -> None:
        (name, text), position = wire.names(message, 2)
        self.text = text[:MOST_TEXT]
        self.types = _oids(message, position)
        self.message = b"" if name else message
        self.script = script
        self.statement: Statement | None = None
        if len(script.statements) == 1 and script.matters:
            self.statement = script.statements[0]

    def described(self, message: bytes) -> None:
        """What the server says of its parameters."""
        self.types = _oids(message, 5)


class Earlier(NamedTuple):
    """What a name stood for before it was parsed anew or closed, if that does not come to pass."""

    name: bytes
    prepared: Prepared | None


def _oids(message: bytes, position: int) -> tuple[int, ...]:
    count = int.from_bytes(message[position : position + 2])
    position += 2
    return tuple(int.from_bytes(message[at : at + 4]) for at in range(position, position + 4 * count, 4))
