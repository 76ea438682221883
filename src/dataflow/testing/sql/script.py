"""A file of SQL as its statements, as psql would send them, with the rows that follow a COPY … FROM stdin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from dataflow.testing.sql.lexer import Boundary, Token, tokens

# pg_dump writes them around its output since 2025; they concern psql only.
_HARMLESS = ("\\restrict", "\\unrestrict")
_END_OF_DATA = re.compile(r"^\\\.\r?$", re.MULTILINE)


class Statement(NamedTuple):
    """:param text: without the semicolon at its end. :param line: where it begins, counted from 1.
    :param data: rows to send with it; None unless it is a COPY … FROM stdin.
    """

    text: str
    line: int
    data: str | None = None


class Refused(NamedTuple):
    """What cannot be sent: a command to psql itself, such as ``\\connect shop``; or what stands behind COPY …
    FROM stdin on its line, before the rows."""

    text: str
    line: int

    @property
    def command(self) -> str | None:
        """The name of the command to psql, if it is one."""
        return self.text.split()[0] if self.text.startswith("\\") else None


def split(script: str) -> Iterator[Statement | Refused]:
    """What `script` holds, in its order; `script` must have no byte order mark.

    What has no end (a quote, a comment) is a part of the last statement, for the server to complain about.
    """
    line, counted, position = 1, 0, 0
    while position < len(script):
        found = _next(script, position)
        if found.stop > found.start:
            line += script.count("\n", counted, found.start)
            counted = found.start
            yield found.piece(script, line)
        position = found.next


class _Found(NamedTuple):
    """Places in a script: from `start` to `stop` a piece, then perhaps `data`; the next one from `next` on."""

    start: int
    stop: int
    next: int
    data: tuple[int, int] | None = None
    refused: bool = False

    def piece(self, script: str, line: int) -> Statement | Refused:
        text = script[self.start : self.stop].rstrip()
        if self.refused:
            return Refused(text, line)
        return Statement(text, line, script[slice(*self.data)] if self.data else None)


def _next(script: str, begin: int) -> _Found:
    """The first piece at or after `begin`."""
    boundary = Boundary()
    head: list[Token] = []
    previous, reads_stdin = "", False
    for token in tokens(script, begin):
        word = token.word
        if word == "\\":
            return _command(script, token.start, inside=bool(head))
        if boundary.passed(token.kind, word):
            if not head:
                continue
            if reads_stdin:
                return _with_data(script, head[0].start, token)
            return _Found(head[0].start, token.start, token.stop)
        head = head or [token]
        if token.kind in ("open", "unclosed"):
            break
        reads_stdin |= head[0].word == "copy" and (previous, word) == ("from", "stdin")
        previous = word
    end = len(script)
    return _Found(head[0].start if head else end, end, end, (end, end) if reads_stdin else None)


def _command(script: str, start: int, *, inside: bool) -> _Found:
    """:param inside: it stands within a statement, which then cannot be sent either."""
    stop = _line_end(script, start)
    text = script[start:stop].split()[0]
    if text in _HARMLESS and not inside:
        return _Found(stop, stop, stop)
    return _Found(start, stop, stop, refused=True)


def _with_data(script: str, start: int, semicolon: Token) -> _Found:
    """A COPY … FROM stdin: its rows begin on the next line and end with a line that is ``\\.``, or the script."""
    line_end = _line_end(script, semicolon.stop)
    rest = next(tokens(script[:line_end], semicolon.stop), None)
    if rest is not None:
        return _Found(rest.start, line_end, line_end, refused=True)
    begin = min(line_end + 1, len(script))
    last = _END_OF_DATA.search(script, begin)
    data = (begin, last.start() if last else len(script))
    return _Found(start, semicolon.start, last.end() if last else len(script), data)


def _line_end(script: str, position: int) -> int:
    end = script.find("\n", position)
    return len(script) if end < 0 else end
