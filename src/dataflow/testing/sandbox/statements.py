"""What of a string of SQL concerns transactions: its statements, and what kind of statement each is. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, Self

from dataflow.testing.sql.lexer import tokens
from dataflow.testing.sql.script import split


class Kind(enum.Enum):
    """As far as it matters here."""

    PLAIN = "plain"
    BEGIN = "BEGIN"
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"
    SAVEPOINT = "SAVEPOINT"  # set, released, or gone back to
    TWO_PHASE = "PREPARE TRANSACTION"
    SET_LOCAL = "SET LOCAL"
    SET_TRANSACTION = "SET TRANSACTION"
    SET_CONSTRAINTS = "SET CONSTRAINTS"
    DECLARE = "DECLARE CURSOR"
    LOCK = "LOCK TABLE"
    DISCARD_ALL = "DISCARD ALL"
    DEALLOCATE = "DEALLOCATE"


class Statement(NamedTuple):
    """
    :param start: where it begins in its string.
    :param words: the first of them, in lower case. :param chain: AND CHAIN. :param read_only: it begins a
        transaction that is. :param settings: what it sets until the end of the transaction.
    :param cursor: what it declares, unless WITH HOLD. :param savepoint: which it sets, releases or goes back to.
    :param read_write: it has a transaction write again. :param prepared: what it deallocates; None: all.
    :param sets: what it sets beyond that end. :param parameters: numbers of those that name such settings.
    """

    text: str
    kind: Kind
    start: int = 0
    words: tuple[str, ...] = ()
    chain: bool = False
    read_only: bool = False
    settings: tuple[str, ...] = ()
    cursor: str | None = None
    savepoint: str | None = None
    parameters: tuple[int, ...] = ()
    sets: str | None = None
    read_write: bool = False
    prepared: str | None = None

    def with_parameters(self, values: Sequence[bytes | None]) -> Self:
        """With the names of settings that are given as parameters."""
        given = (values[number - 1] for number in self.parameters if number <= len(values))
        names = tuple(value.decode("utf-8", "replace") for value in given if value)
        return self._replace(settings=self.settings + names) if names else self

    @property
    def matters(self) -> bool:
        return self.kind is not Kind.PLAIN or bool(self.settings or self.parameters or self.sets)

    @property
    def replaced(self) -> bool:
        """Never sent as it is."""
        return self.kind in _REPLACED

    @property
    def ends(self) -> bool:
        """It ends a transaction, and so is read in one that has failed, too."""
        return self.kind in (Kind.COMMIT, Kind.ROLLBACK) or self.words[:2] == ("prepare", "transaction")

    @property
    def called(self) -> str:
        """As the server names it in its messages."""
        if self.kind is Kind.SAVEPOINT and self.words[0] != "savepoint":
            return "RELEASE SAVEPOINT" if self.words[0] == "release" else "ROLLBACK TO SAVEPOINT"
        return self.kind.value


_REPLACED = {
    Kind.BEGIN,
    Kind.COMMIT,
    Kind.ROLLBACK,
    Kind.TWO_PHASE,
    Kind.SET_TRANSACTION,
    Kind.DISCARD_ALL,
}


class Script(NamedTuple):
    """:param defers: constraints may be deferrable after it.
    :param copies: it may be a COPY with rows behind it. :param prepares: it has a PREPARE.
    """

    statements: tuple[Statement, ...]
    copies: bool = False
    defers: bool = False
    prepares: bool = False

    @property
    def matters(self) -> bool:
        return any(statement.matters for statement in self.statements)


# A statement is looked at in full only if one of these words is in it.
_WORDS = re.compile(
    r"\b(?:begin|start|commit|end|rollback|abort|savepoint|release|prepare|set|reset|declare|lock|discard|copy"
    r"|deallocate|set_config|deferr\w+)\b",
    re.IGNORECASE,
)
_SET_CONFIG = re.compile(r"\bset_config\s*\(\s*'([^']+)'\s*,[^;]*?,\s*(?:true|'t(?:rue)?'|\$\d+)", re.IGNORECASE)
_SET_CONFIG_NAMED = re.compile(
    r"\bset_config\s*\(\s*\$(\d+)(?:::\w+)?\s*,[^;]*?,\s*(?:true|'t(?:rue)?'|\$\d+)", re.IGNORECASE
)
_DEFERS = re.compile(r"\bdeferr(?:able|ed)\b", re.IGNORECASE)
_VALID = re.compile(r"[^\W\d][\w$]*(?:\.[^\W\d][\w$]*)*")  # as the name of a setting
_HEAD = 12
_NOTHING = Script(())
# Settings with a name of their own in SET.
_SAID = {
    ("time", "zone"): "timezone",
    ("session", "authorization"): "session_authorization",
    ("xml", "option"): "xmloption",
    ("names",): "client_encoding",
    ("schema",): "search_path",
}


def read(sql: str) -> Script:
    """What concerns transactions in a string; nothing of a string without it, however many statements it has."""
    if _WORDS.search(sql) is None:
        return _NOTHING
    return _cached(sql) if len(sql) <= _CACHED_LENGTH else _read(sql)


def _read(sql: str) -> Script:
    statements: list[Statement] = []
    behind = 0
    for piece in split(sql):
        start = sql.index(piece.text, behind)
        behind = start + len(piece.text)
        statements.append(_statement(piece.text)._replace(start=start))
    return Script(
        tuple(statements),
        copies=any(statement.words[:1] == ("copy",) for statement in statements),
        defers=_DEFERS.search(sql) is not None,
        prepares=any(statement.words[:1] == ("prepare",) for statement in statements),
    )


_CACHED_LENGTH = 10_000
_cached = lru_cache(maxsize=1024)(_read)


def _statement(text: str) -> Statement:
    words = _first_words(text)
    head = words[0] if words else ""
    make = _READERS.get(head)
    found = make(text, words) if make is not None else None
    if found is not None:
        return found
    if "set_config" not in text.lower():
        return Statement(text, Kind.PLAIN, words=words)
    numbers = tuple(map(int, _SET_CONFIG_NAMED.findall(text)))
    return Statement(text, Kind.PLAIN, words=words, settings=tuple(_SET_CONFIG.findall(text)), parameters=numbers)


def _first_words(text: str) -> tuple[str, ...]:
    words: list[str] = []
    for token in tokens(text):
        words.append(token.word)
        if len(words) == _HEAD:
            break
    return tuple(words)


def _begin(text: str, words: Sequence[str]) -> Statement | None:
    if words[0] == "start" and words[1:2] != ("transaction",):
        return None
    read_only = any(pair == ("read", "only") for pair in pairwise(words))
    return Statement(text, Kind.BEGIN, words=tuple(words), read_only=read_only)


def _end(text: str, words: Sequence[str]) -> Statement | None:
    rest = [word for word in words[1:] if word not in ("work", "transaction")]
    if rest[:1] == ["prepared"]:
        return None  # the server says what is wrong with it
    kind = Kind.COMMIT if words[0] in ("commit", "end") else Kind.ROLLBACK
    if kind is Kind.ROLLBACK and rest[:1] == ["to"]:
        return _savepoint(text, words)
    return Statement(text, kind, words=tuple(words), chain=rest[:2] == ["and", "chain"])


def _savepoint(text: str, words: Sequence[str]) -> Statement:
    rest = [word for word in words[1:] if word not in ("work", "transaction", "to", "savepoint")]
    return Statement(text, Kind.SAVEPOINT, words=tuple(words), savepoint=_name(rest[0]) if rest else None)


def _name(word: str) -> str:
    return word[1:-1].replace('""', '"') if word.startswith('"') else word


def _prepare(text: str, words: Sequence[str]) -> Statement | None:
    return Statement(text, Kind.TWO_PHASE, words=tuple(words)) if words[1:2] == ("transaction",) else None


def _set(text: str, words: Sequence[str]) -> Statement | None:
    if words[1:2] == ("constraints",):
        return Statement(text, Kind.SET_CONSTRAINTS, words=tuple(words))
    rest = words[2:] if words[1:2] in (("local",), ("session",)) else words[1:]
    if rest[:1] == ("transaction",):
        read_only = any(pair == ("read", "only") for pair in pairwise(words))
        read_write = any(pair == ("read", "write") for pair in pairwise(words))
        return Statement(
            text, Kind.SET_TRANSACTION, words=tuple(words), read_only=read_only, read_write=read_write
        )
    if words[1:2] != ("local",) or words[2:3] in (("=",), ("to",)):
        name = _setting(
            words[2:] if words[1:2] == ("session",) and words[2:3] != ("authorization",) else words[1:]
        )
        return Statement(text, Kind.PLAIN, words=tuple(words), sets=name)
    name = _setting(words[2:])
    return Statement(text, Kind.SET_LOCAL, words=tuple(words), settings=(name,) if _VALID.fullmatch(name) else ())


def _reset(text: str, words: Sequence[str]) -> Statement:
    return Statement(text, Kind.PLAIN, words=tuple(words), sets=_setting(words[1:]))


def _deallocate(text: str, words: Sequence[str]) -> Statement:
    name = next(iter(words[2:] if words[1:2] == ("prepare",) and len(words) > 2 else words[1:]), "")
    return Statement(text, Kind.DEALLOCATE, words=tuple(words), prepared=None if name == "all" else _name(name))


def _setting(words: Sequence[str]) -> str:
    for said, name in _SAID.items():
        if tuple(words[: len(said)]) == said:
            return name
    parts = [_name(words[0])] if words else []
    for dot, part in zip(words[1::2], words[2::2], strict=False):
        if dot != ".":
            break
        parts.append(_name(part))
    return ".".join(parts).lower()  # the server compares them like that, quoted or not


def _declare(text: str, words: Sequence[str]) -> Statement | None:
    hold = any(pair == ("with", "hold") for pair in pairwise(words))
    return (
        None
        if hold or len(words) < 2
        else Statement(text, Kind.DECLARE, words=tuple(words), cursor=_name(words[1]))
    )


def _lock(text: str, words: Sequence[str]) -> Statement:
    return Statement(text, Kind.LOCK, words=tuple(words))


def _discard(text: str, words: Sequence[str]) -> Statement | None:
    return Statement(text, Kind.DISCARD_ALL, words=tuple(words)) if words[1:2] == ("all",) else None


_READERS = {
    "begin": _begin,
    "start": _begin,
    "commit": _end,
    "end": _end,
    "rollback": _end,
    "abort": _end,
    "savepoint": _savepoint,
    "release": _savepoint,
    "prepare": _prepare,
    "set": _set,
    "reset": _reset,
    "deallocate": _deallocate,
    "declare": _declare,
    "lock": _lock,
    "discard": _discard,
}
