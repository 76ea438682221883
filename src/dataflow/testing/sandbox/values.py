"""Parameters of a statement in words, from the Bind message of the protocol, whatever their format is. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from dataflow.testing.masking import MASK
from dataflow.testing.sandbox import wire

# Longer ones are shortened, and their length told: characters of a text, values of an array, parameters of a
# statement.
MOST_CHARACTERS = 60
MOST_VALUES = 8
MOST_PARAMETERS = 20
# Of a longer message only the beginning of each value is kept.
_SHORT_BYTES = 1_024
_KEPT_BYTES = 4 * MOST_CHARACTERS
_EPOCH = date(2000, 1, 1)
_BYTEA = 17
_NUMERIC = 1700
_NUMBERS = frozenset({20, 21, 23, 26, 700, 701, _NUMERIC})  # int8, int2, int4, oid, float4, float8
_TEXTS = frozenset({18, 19, 25, 114, 705, 1042, 1043})  # char, name, text, json, unknown, bpchar, varchar
_ARRAYS = frozenset({1000, 1005, 1007, 1009, 1014, 1015, 1016, 1021, 1022, 1115, 1182, 1185, 1231, 2951})


_Value = tuple[bool, int, bytes | None]


class Given:
    """The parameters of one execution: kept short, and put in words when somebody asks.

    :param types: oids, as far as they are known.
    """

    __slots__ = ("_kept", "_types")

    def __init__(self, bind: bytes, types: Sequence[int]) -> None:
        self._types = types
        self._kept: bytes | tuple[int, list[_Value]] = bind if len(bind) <= _SHORT_BYTES else _shortened(bind)

    def shown(self, *, hidden: bool = False) -> list[str]:
        """:param hidden: the values are secret."""
        shown = []
        count, values = _shortened(self._kept) if isinstance(self._kept, bytes) else self._kept
        for place, (binary, length, value) in enumerate(values):
            type_ = self._types[place] if place < len(self._types) else 0
            if value is None:
                shown.append("NULL")
            elif hidden:
                shown.append(MASK)
            else:
                shown.append(_shown(value, length, type_, binary=binary))
        if count > len(shown):
            shown.append(f"… ({count} parameters)")
        return shown


def _shortened(bind: bytes) -> tuple[int, list[_Value]]:
    """How many values there are, and of the first ones each: whether it is binary, its length, its beginning."""
    binary, values = _binary(bind), wire.parameters(bind)
    return len(values), [
        (binary(place), -1 if value is None else len(value), value and value[:_KEPT_BYTES])
        for place, value in enumerate(values[:MOST_PARAMETERS])
    ]


def _binary(bind: bytes) -> Callable[[int], bool]:
    """Whether a parameter is in the binary format: none is, or all are as the only one, or each has its own."""
    _, position = wire.names(bind, 2)
    count = int.from_bytes(bind[position : position + 2])
    formats = struct.unpack_from(f"!{count}h", bind, position + 2)
    if count == 1:
        return lambda _place: formats[0] == 1
    return lambda place: count > 0 and formats[place] == 1


def _shown(value: bytes, length: int, type_: int, *, binary: bool) -> str:
    if not binary or type_ in _TEXTS:
        text = value.decode("utf-8", "replace")
        return text if type_ in _NUMBERS else _quoted(text, length > len(value), length)
    if length > len(value) and type_ not in _ARRAYS:
        return f"({length} bytes)"
    try:
        shown = _decoded(value, length, type_)
        return shown if type_ != _NUMERIC or len(shown) <= MOST_CHARACTERS else _cut(shown)
    except (ValueError, struct.error, OverflowError, LookupError):
        return f"({length} bytes)"


def _cut(number: str) -> str:
    return f"{number[:MOST_CHARACTERS]}… ({len(number)} characters)"


def _decoded(value: bytes, length: int, type_: int) -> str:
    if type_ in _ARRAYS:
        return _array(value)
    decode = _DECODERS.get(type_)
    return decode(value) if decode is not None else f"({length} bytes)"


def _quoted(text: str, cut: bool, length: int) -> str:
    shown = text[:MOST_CHARACTERS].replace("'", "''")
    if not cut and len(text) <= MOST_CHARACTERS:
        return f"'{shown}'"
    return f"'{shown}…' ({length} bytes)" if cut else f"'{shown}…' ({len(text)} characters)"


def _array(value: bytes) -> str:
    dimensions, _, element = struct.unpack_from("!iiI", value)
    if dimensions == 0:
        return "{}"
    count = struct.unpack_from("!i", value, 12)[0]
    if dimensions > 1:
        return f"(array of {dimensions} dimensions)"
    parts = list(_elements(value, element, min(count, MOST_VALUES)))
    more = f", … ({count} values)" if count > len(parts) else ""
    return "{" + ", ".join(parts) + more + "}"


def _elements(value: bytes, element: int, count: int) -> Iterator[str]:
    position = 20
    for _ in range(count):
        if position + 4 > len(value):
            return
        (length,) = struct.unpack_from("!i", value, position)
        position += 4
        if length > len(value) - position:
            yield "…"  # its end was not kept
            return
        yield "NULL" if length < 0 else _shown(value[position : position + length], length, element, binary=True)
        position += max(length, 0)


def _numeric(value: bytes) -> str:
    count, weight, sign, scale = struct.unpack_from("!hhHh", value)
    if sign not in (0, 0x4000):
        return {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}[sign]
    digits = struct.unpack_from(f"!{count}h", value, 8)
    whole = "".join(f"{digits[i] if i < count else 0:04}" for i in range(weight + 1)).lstrip("0") or "0"
    parts = (f"{digits[i] if 0 <= i < count else 0:04}" for i in range(weight + 1, weight + 1 + scale // 4 + 1))
    fraction = "".join(parts)[:scale]
    return ("-" if sign else "") + whole + ("." + fraction if scale else "")


def _timestamp(value: bytes) -> str:
    at = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=int.from_bytes(value, signed=True))
    return f"'{at.replace(tzinfo=None)}'"


def _with_zone(value: bytes) -> str:
    return _timestamp(value)[:-1] + "+00'"


def _float(value: bytes) -> str:
    return repr(struct.unpack("!d" if len(value) == 8 else "!f", value)[0])


def _integer(value: bytes) -> str:
    return str(int.from_bytes(value, signed=True))


_DECODERS: dict[int, Callable[[bytes], str]] = {
    16: lambda value: "true" if value[0] else "false",
    20: _integer,
    21: _integer,
    23: _integer,
    26: lambda value: str(int.from_bytes(value)),
    700: _float,
    701: _float,
    1082: lambda value: f"'{_EPOCH + timedelta(days=int.from_bytes(value, signed=True))}'",
    1114: _timestamp,
    1184: _with_zone,
    _NUMERIC: _numeric,
    2950: lambda value: f"'{UUID(bytes=value)}'",
    3802: lambda value: _quoted(value[1:].decode("utf-8", "replace"), False, 0),
}
