"""What the server says to a Query of ours, as values. Pure."""

from __future__ import annotations

from collections.abc import Callable

from dataflow.testing.sandbox import wire

_READY, _ROW, _ERROR = b"ZDE"
_OUTSIDE = ord("I")
_GONE = {"S": "FATAL", "C": "08006", "M": "the connection was closed"}


class Answer:
    """
    :param told: is called when all was said.
    :ivar rows: as text. :ivar error: its fields, by their letters. :ivar ready: how often the server says that
        it is, until all was said. :ivar outside: of a transaction, when it was.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self.rows: list[tuple[str | None, ...]] = []
        self.error: dict[str, str] | None = None
        self.ready = 1
        self.outside = False

    def hear(self, stream: bytearray) -> None:
        """Take out of a stream what is there."""
        position = 0
        while self.ready and (end := wire.end_of(stream, position)):
            kind = stream[position]
            if kind == _ROW:
                self.rows.append(wire.row(stream, position))
            elif kind == _ERROR:
                self.error = wire.fields(stream[position:end])
            elif kind == _READY:
                self.ready -= 1
                self.outside = stream[end - 1] == _OUTSIDE
            position = end
        del stream[:position]
        if not self.ready:
            self._told()

    def hang_up(self) -> None:
        """The server is gone, and says nothing more."""
        self.error, self.ready = dict(_GONE), 0
        self._told()
