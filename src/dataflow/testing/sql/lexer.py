"""Tokens: just enough of PostgreSQL's lexical rules to find where statements end.

Quotes, dollar quotes, nested comments, and the bodies of SQL-standard functions. A backslash in '…' is an
ordinary character, as it is by default (`standard_conforming_strings`) and always since PostgreSQL 19.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

# Possessive repeats: others remember a place for each character, 1.4 GB for a string of 10 MB.
_LEXEME_PATTERN = r"""
      (?P<space>[ \t\r\n\f\v]+ | --[^\r\n]*)
    | (?P<comment>/\*)
    | (?P<quoted>[eE]'(?:[^'\\]++|\\.|'')*+'(?:[ \t\f\v]*[\r\n]\s*'(?:[^'\\]++|\\.|'')*+')*
        | '[^']*+(?:''[^']*+)*+' | "[^"]*+(?:""[^"]*+)*+")
    | (?P<open>[eE]?'|")
    | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][\w]*)?\$)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][\w$]*)
    | (?P<end>;)
    | (?P<other>[0-9]+|.)
    """
_COMMENT_EDGE = re.compile(r"/\*|\*/")


@lru_cache(maxsize=1)
def _lexeme() -> re.Pattern[str]:
    """Compiled at first use: it takes milliseconds."""
    return re.compile(_LEXEME_PATTERN, re.VERBOSE | re.DOTALL)


class Token(NamedTuple):
    """:param kind: word, quoted, end (a semicolon), other; open is a quote without an end, unclosed a comment.
    :param text: as written; of a dollar-quoted string its tag. :param start: where it begins, `stop`: ends.
    """

    kind: str
    text: str
    start: int
    stop: int

    @property
    def word(self) -> str:
        """As a key word would be compared; anything else as written."""
        return self.text.lower() if self.kind == "word" else self.text


def tokens(sql: str, position: int = 0) -> Iterator[Token]:
    """Tokens from `position` on, without white space and comments; a quoted string is one token.

    A quote without an end is a token by itself; what follows is read as if it were not there.
    """
    lexeme = _lexeme()
    while position < len(sql):
        match = lexeme.match(sql, position)
        if match is None:  # pragma: no cover - the last alternative matches any character
            return
        kind, text = match.lastgroup or "other", match.group()
        start, position = match.span()
        if kind == "comment":
            position = _after_comment(sql, position)
            if position < 0:
                yield Token("unclosed", text, start, len(sql))
                return
        elif kind == "dollar":
            end = sql.find(text, position)
            position = len(sql) if end < 0 else end + len(text)
            yield Token("quoted", text, start, position)
        elif kind != "space":
            yield Token(kind, text, start, position)


class Boundary:
    """Tells the semicolons that end a statement from those inside of it.

    Inside are those in parentheses (CREATE RULE) and in the body of an SQL-standard function (BEGIN ATOMIC).
    """

    __slots__ = ("_first", "_in_body", "_in_parentheses", "_previous")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._first = self._previous = ""
        self._in_body = self._in_parentheses = 0

    def passed(self, kind: str, word: str) -> bool:
        """Whether this token, the next one, is a semicolon that ends a statement."""
        if kind == "end" and not self._in_body and not self._in_parentheses:
            self._begin()
            return True
        if word == "(":
            self._in_parentheses += 1
        elif word == ")":
            self._in_parentheses = max(0, self._in_parentheses - 1)
        elif kind == "word":
            self._first = self._first or word
            if self._first == "create":
                self._in_body += self._body_change(word)
        self._previous = word
        return False

    def _body_change(self, word: str) -> int:
        if self._previous == "begin" and word == "atomic":
            return 1
        if self._in_body and word == "case":
            return 1
        return -1 if self._in_body and word == "end" else 0


def _after_comment(sql: str, position: int) -> int:
    """Behind the end of the comment that was entered just before `position`; -1 when it has none."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position)
        if edge is None:
            return -1
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position
