"""Messages of PostgreSQL's protocol 3: cutting a stream into them, and the few that are written here. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

_INT = struct.Struct("!I")
_length = _INT.unpack_from
_type_and_length = struct.Struct("!BI").unpack_from
_SIGNED = struct.Struct("!i")
_ROWS = b"Dd"
_BACKEND_KEY = ord("K")
_CANCEL = 80877102  # in place of a version
_HEAD = 5  # the type, and the length, which counts itself


class Move(NamedTuple):
    """A piece of a string that was sent stands so many characters elsewhere in what the driver sent."""

    start: int
    stop: int
    by: int


SYNC = b"S\x00\x00\x00\x04"
TERMINATE = b"X\x00\x00\x00\x04"


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + _INT.pack(len(body) + 4) + body


def query(sql: str | bytes) -> bytes:
    return message(b"Q", _text(sql) + b"\0")


def parse(name: bytes, sql: str | bytes) -> bytes:
    return message(b"P", name + b"\0" + _text(sql) + b"\0\0\0")


def bind(portal: bytes, statement: bytes) -> bytes:
    """Without parameters, and with results as text."""
    return message(b"B", portal + b"\0" + statement + b"\0" + b"\0" * 6)


def execute(portal: bytes) -> bytes:
    return message(b"E", portal + b"\0\0\0\0\0")


def close(what: bytes, name: bytes) -> bytes:
    """:param what: S for a statement, P for a portal."""
    return message(b"C", what + name + b"\0")


def cancel_request(greeting: bytes) -> bytes:
    """Cancels what is under way in the session that was greeted like that."""
    key = next(each[_HEAD:] for each in taken(bytearray(), greeting) if each[0] == _BACKEND_KEY)
    return _INT.pack(len(key) + 8) + _INT.pack(_CANCEL) + key


def complete(tag: bytes) -> bytes:
    return message(b"C", tag + b"\0")


def ready(status: bytes) -> bytes:
    """:param status: I outside of a transaction, T inside, E inside one that has failed."""
    return message(b"Z", status)


def taken(stream: bytearray, more: bytes | memoryview = b"", *, rows_together: bool = False) -> list[bytes]:
    """The whole messages of a stream, behind which more has come; what is left stays in it.

    :param rows_together: rows that follow one another, or data of a COPY, come as if they were one message.
    """
    if stream:
        stream += more
        if not end_of(stream, 0):  # of a long one, of which each piece is looked at once
            return []
        said = bytes(stream)
        stream.clear()
    else:
        said = bytes(more)
    found = []
    position, size = 0, len(said)
    while size - position >= _HEAD:
        end = position + 1 + _length(said, position + 1)[0]
        if end > size:
            break
        if rows_together and said[position] in _ROWS:
            end = _end_of_run(said, end, said[position])
        found.append(said[position:end])
        position = end
    if position < size:
        stream += said[position:]
    return found


def end_of(stream: bytearray, start: int) -> int:
    """Where the message that begins there ends; 0: not all of it is there."""
    if len(stream) - start < _HEAD:
        return 0
    end: int = start + 1 + _length(stream, start + 1)[0]
    return end if end <= len(stream) else 0


def _end_of_run(said: bytes, end: int, kind: int) -> int:
    size = len(said)
    try:
        while True:
            found, length = _type_and_length(said, end)
            following = end + 1 + length
            if found != kind or following > size:
                return end
            end = following
    except struct.error:  # not even a head is left
        return end


def name(said: bytes, start: int = _HEAD) -> bytes:
    """The string of a message that begins there, and has a zero at its end."""
    return said[start : said.index(0, start)]


def names(body: bytes, count: int, start: int = _HEAD) -> tuple[list[bytes], int]:
    """So many strings of a message, each with a zero at its end, and the place behind them."""
    found = []
    for _ in range(count):
        end = body.index(0, start)
        found.append(body[start:end])
        start = end + 1
    return found, start


def parameters(said: bytes) -> list[bytes | None]:
    """The values of a Bind, in whatever format they are."""
    _, position = names(said, 2)
    position += 2 + 2 * int.from_bytes(said[position : position + 2])
    values: list[bytes | None] = []
    count = int.from_bytes(said[position : position + 2])
    position += 2
    for _ in range(count):
        length = int.from_bytes(said[position : position + 4], signed=True)
        position += 4
        values.append(None if length < 0 else said[position : position + length])
        position += max(length, 0)
    return values


def renamed(said: bytes, at: int, prefix: bytes) -> bytes:
    """The same with a prefix to the name that stands at a place, unless that is empty."""
    if not prefix or not said[at]:
        return said
    return message(said[:1], said[_HEAD:at] + prefix + said[at:])


def row(said: bytes | bytearray, start: int = 0) -> tuple[str | None, ...]:
    """The values of the DataRow that begins there; they are text."""
    values: list[str | None] = []
    position = start + _HEAD + 2
    for _ in range(said[position - 1]):  # a row of ours has few
        (length,) = _SIGNED.unpack_from(said, position)
        position += 4
        if length < 0:
            values.append(None)
        else:
            values.append(said[position : position + length].decode())
            position += length
    return tuple(values)


def fields(said: bytes | bytearray) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse, by their letters."""
    parts = said[_HEAD:].split(b"\0")
    return {chr(part[0]): part[1:].decode("utf-8", "replace") for part in parts if part}


def error(sqlstate: str, text: str, hint: str = "") -> bytes:
    """An ErrorResponse."""
    fields = {"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": text} | ({"H": hint} if hint else {})
    return message(b"E", b"".join(f"{letter}{value}\0".encode() for letter, value in fields.items()) + b"\0")


def moved(said: bytes, moves: Iterable[Move]) -> bytes:
    """An error that tells its place in what the driver sent, and not in what was sent in place of that."""
    position = _HEAD
    while said[position]:
        end = said.index(0, position)
        if said[position : position + 1] == b"P":
            place = int(said[position + 1 : end]) - 1
            by = next((move.by for move in moves if move.start <= place <= move.stop), 0)
            return message(b"E", said[_HEAD : position + 1] + str(place + by + 1).encode() + said[end:])
        position = end + 1
    return said


def _text(sql: str | bytes) -> bytes:
    return sql.encode() if isinstance(sql, str) else sql
