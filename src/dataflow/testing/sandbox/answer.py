"""What the server says to a Query of ours, as values. Pure."""

from __future__ import annotations

from dataflow.testing.sandbox import wire

_READY, _ROW, _ERROR = b"ZDE"


class Answer:
    """:ivar over: all was said. :ivar rows: as text. :ivar error: its fields, by their letters."""

    def __init__(self) -> None:
        self.over = False
        self.rows: list[tuple[str | None, ...]] = []
        self.error: dict[str, str] | None = None
        self._said = bytearray()

    def heard(self, said: bytes) -> None:
        self._said += said
        for kind, message in wire.cut(self._said):
            if kind == _ROW:
                self.rows.append(wire.row(message))
            elif kind == _ERROR:
                self.error = wire.fields(message)
            elif kind == _READY:
                self.over = True
