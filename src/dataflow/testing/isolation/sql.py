"""What kind of statements a string of SQL holds, told from their first words. Pure; no server is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache

from dataflow.testing.sql.lexer import Boundary, tokens

_QUERIES = {
    "select",
    "with",
    "values",
    "table",
    "copy",
    "fetch",
    "move",
    "declare",
    "close",
    "explain",
    "show",
}
_CHANGES = {"insert", "update", "delete", "merge"}
_CONTROL = {"begin", "start", "savepoint", "release", "rollback", "abort", "commit", "end", "lock"}
_SETTINGS = {"set", "reset", "notify", "listen", "unlisten"}
_DATA = frozenset(_QUERIES | _CHANGES | _CONTROL | _SETTINGS)
# Statements whose effect on the session outlives a rollback.
_SESSION = frozenset({"prepare", "deallocate", "discard", "load"})
_SESSION_WORK = re.compile(rf"\b(?:{'|'.join(sorted(_SESSION))})\b", re.IGNORECASE)
_TRANSACTION = frozenset({"commit", "end", "prepare", "rollback", "abort", "savepoint", "release"})
# SELECT … INTO makes a table. A column or string of that name only costs a look at the schema.
_INTO = re.compile(r"(?<!insert )(?<!merge )\binto\b", re.IGNORECASE)


class Script:
    """What is in a string of SQL.

    :param heads: for each statement its first words in lower case, quoted names as written.
    :param selects_into: a query may make a table.
    :param does_session_work: a DO block may do what outlives a rollback.
    """

    def __init__(
        self, heads: tuple[tuple[str, ...], ...], *, selects_into: bool = False, does_session_work: bool = False
    ) -> None:
        self.heads = heads
        self.selects_into = selects_into
        self._does_session_work = does_session_work

    @cached_property
    def changes_schema(self) -> bool:
        """At least one statement is neither a query nor a change of rows: count it as schema work."""
        return self.selects_into or any(head[0] not in _DATA for head in self.heads)

    @cached_property
    def leaves_session_state(self) -> bool:
        return self._does_session_work or any(head[0] in _SESSION for head in self.heads)

    @cached_property
    def controls_transaction(self) -> bool:
        """False for most: then nothing of what follows can be true."""
        return any(head[0] in _TRANSACTION for head in self.heads)

    @cached_property
    def rolls_back(self) -> bool:
        """A statement would end the transaction by undoing it (and not merely go back to a savepoint)."""
        return any(_is_rollback(head) for head in self.heads)

    @cached_property
    def savepoint_changes(self) -> tuple[tuple[str, str], ...]:
        """What happens to savepoints: pairs of ``set``, ``release`` or ``rollback`` and a name."""
        return tuple(change for head in self.heads if (change := _savepoint_change(head)) is not None)


def script(sql: str) -> Script:
    """Read the heads of all statements in `sql`."""
    return _read_cached(sql) if len(sql) <= _CACHED_LENGTH else _read(sql)


def quote_identifier(name: str) -> str:
    """A name as SQL, whatever characters it has."""
    if "\0" in name or not name:
        raise ValueError(f"{name!r} cannot be a name in SQL")
    return '"' + name.replace('"', '""') + '"'


def _read(sql: str) -> Script:
    heads = tuple(_heads(sql))
    selects = any(head[0] in ("select", "with") for head in heads)
    does = any(head[0] == "do" for head in heads)
    return Script(
        heads,
        selects_into=selects and _INTO.search(sql) is not None,
        does_session_work=does and _SESSION_WORK.search(sql) is not None,
    )


# Tests run the same strings again and again; very long ones are rare, and not worth the memory.
_CACHED_LENGTH = 10_000
_read_cached = lru_cache(maxsize=1024)(_read)
# The most words of a head: ROLLBACK WORK TO SAVEPOINT name.
_HEAD = 5


def _heads(sql: str) -> Iterator[tuple[str, ...]]:
    head: list[str] = []
    boundary = Boundary()
    single = ";" not in sql
    for token in tokens(sql):
        word = token.word
        if boundary.passed(token.kind, word):
            if head:
                yield tuple(head)
            head = []
        elif (head or word != "(") and token.kind not in ("end", "unclosed") and len(head) < _HEAD:
            head.append(word)
        if single and len(head) == _HEAD:
            break  # the rest of a long statement cannot matter
    if head:
        yield tuple(head)


def _is_rollback(head: tuple[str, ...]) -> bool:
    if head[0] not in ("rollback", "abort"):
        return False
    rest = [word for word in head[1:] if word not in ("work", "transaction")]
    return rest[:1] not in (["to"], ["prepared"])


def _savepoint_change(head: tuple[str, ...]) -> tuple[str, str] | None:
    rest = [word for word in head[1:] if word not in ("work", "transaction", "to", "savepoint")]
    if not rest:
        return None
    if head[0] == "savepoint":
        return "set", _name(rest[0])
    if head[0] == "release":
        return "release", _name(rest[0])
    if head[0] == "rollback" and rest[0] not in ("prepared", "and"):
        return "rollback", _name(rest[0])
    return None


def _name(word: str) -> str:
    return word[1:-1].replace('""', '"') if word.startswith('"') else word
