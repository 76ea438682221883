"""What people read when their schema cannot be built. Pure; the server's words come in as values."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from dataflow.testing.errors import SchemaFailed
from dataflow.testing.masking import mask
from dataflow.testing.template.importing import is_users
from dataflow.testing.template.inputs import shown

if TYPE_CHECKING:
    import psycopg

_SHOWN_LENGTH = 300
_SHOWN_LINES = 6
_SHOWN_FRAMES = 3
_UNAVAILABLE = re.compile(
    r"extension \"(?P<name>[^\"]+)\" is not available|extension control file \S*?(?P<file>[\w-]+)\.control"
)
_CREATE_EXTENSION = re.compile(
    r"CREATE\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?\"?(?P<name>[\w-]+)", re.IGNORECASE
)
# feature_not_supported (since PostgreSQL 13), undefined_file
_EXTENSION_STATES = ("0A000", "58P01")
_BUILT_IN = {"pgcrypto": "gen_random_uuid()", "uuid-ossp": "gen_random_uuid()"}


class Said(NamedTuple):
    """What the server said of a statement.

    :param position: of the mistake in it, characters from 1. :param context: where else it happened: a row of
        COPY, a line of a function.
    """

    message: str
    detail: str | None = None
    hint: str | None = None
    state: str | None = None
    position: int | None = None
    context: str | None = None

    @classmethod
    def of(cls, error: psycopg.Error) -> Self:
        diag = error.diag
        message = diag.message_primary or " ".join(str(error).split()) or type(error).__name__
        position = int(diag.statement_position) if diag.statement_position else None
        return cls(message, diag.message_detail, diag.message_hint, diag.sqlstate, position, diag.context)


def of_statement(place: str, line: int, statement: str, said: Said) -> SchemaFailed:
    """A statement of a file failed.

    :param place: the file. :param line: on which the statement begins.
    """
    if said.position:
        line += statement.count("\n", 0, said.position - 1)
    parts = [
        f"the schema could not be built: {place}, line {line}: {said.message}",
        *_part("detail", said.detail),
        *_part("hint", said.hint),
        *_part("context", said.context and shortened(said.context)),
        *_part("statement", shortened(statement)),
    ]
    remedy = "correct the statement and run again; nothing half-built was kept"
    extension = missing_extension(said.message) or _refused_extension(statement, said.state)
    return with_extension(mask("\n".join(parts)), extension, remedy)


def with_extension(what: str, extension: str | None, remedy: str) -> SchemaFailed:
    """:param extension: the one that is missing, which is why and what `remedy` cannot help; or None."""
    if extension is None:
        return SchemaFailed(what, remedy=remedy)
    instead = f"; {_BUILT_IN[extension]} needs no extension" if extension in _BUILT_IN else ""
    return SchemaFailed(
        what,
        cause=f"the PostgreSQL in use does not have the extension {extension}",
        remedy="the embedded server lacks pgcrypto, uuid-ossp, PostGIS and others: use a PostgreSQL that has "
        + extension
        + instead,
        option="DATAFLOW_TDD_POSTGRES_BIN, a folder with its programs; or TEST_DATABASE_URL, a server that runs",
    )


def missing_extension(text: str) -> str | None:
    """The extension that `text`, a message or a program's output, says the server does not have."""
    found = _UNAVAILABLE.search(text)
    return (found["name"] or found["file"]) if found else None


def raised_at(error: BaseException) -> str:
    """The last lines of the user's own code in the traceback, indented under a message: pytest does not show it
    for an error that is told in words. "" when there are none."""
    return at(
        (each.filename, each.lineno, each.name, each.line) for each in traceback.extract_tb(error.__traceback__)
    )


def at(frames: Iterable[tuple[str, int | None, str, str | None]]) -> str:
    """The same of frames as values: file, line, function and text."""
    own = [frame for frame in frames if is_users(Path(frame[0]))]
    return "".join(
        f"\n    at {shown(Path(file))}:{line}, in {function}: {mask(text or '')}"
        for file, line, function, text in own[-_SHOWN_FRAMES:]
    )


def shortened(statement: str) -> str:
    """Its beginning, in a few lines."""
    lines = statement.strip()[:_SHOWN_LENGTH].splitlines()
    shown = "\n      ".join(line.rstrip() for line in lines[:_SHOWN_LINES])
    return shown if len(lines) <= _SHOWN_LINES and len(statement.strip()) <= _SHOWN_LENGTH else f"{shown} …"


def _refused_extension(statement: str, state: str | None) -> str | None:
    """For servers that do not speak English."""
    found = _CREATE_EXTENSION.match(statement) if state in _EXTENSION_STATES else None
    return found["name"] if found else None


def _part(name: str, text: str | None) -> tuple[str, ...]:
    return (f"    {name}: {text}",) if text else ()
