"""A schema from files of SQL, as they are written or as pg_dump writes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed
from dataflow.testing.sql.script import Refused, Statement, split
from dataflow.testing.template import failure, inputs
from dataflow.testing.template.inputs import shown
from dataflow.testing.template.session import TimeLimit, connect

if TYPE_CHECKING:
    import psycopg

_SUFFIX = ".sql"
_INSTEAD = {
    "\\i": "name that file in its place, where this one is named",
    "\\ir": "name that file in its place, where this one is named",
    "\\include": "name that file in its place, where this one is named",
    "\\connect": "write the dump without the option --create; there is one database only",
    "\\c": "write the dump without the option --create; there is one database only",
    "\\copy": "write COPY … FROM stdin; with the rows behind it and a line \\. at their end",
}


class SqlFiles:
    """Files of SQL, and folders of them, sent to the server statement by statement.

    Each file has a session of its own in autocommit, so that none is changed by what another one set
    (pg_dump's output empties `search_path`), and so that statements work which refuse to run in a transaction.
    A BEGIN … COMMIT in a file does what it says. Rows behind COPY … FROM stdin are sent; of psql's own commands
    only \\restrict and \\unrestrict, which mean nothing here, are skipped.

    :param paths: a folder stands for all ``*.sql`` files in it and below, sorted by path. Relative paths are
        relative to the current directory of now. Files are UTF-8.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = tuple(path.expanduser().absolute() for path in paths)

    def fingerprint(self) -> str:
        """Contents and their order; neither names nor places.

        :raises SchemaFailed: paths are missing, or folders without such a file; all are listed.
        """
        return inputs.fingerprint("sql files", *inputs.contents(self._files()))

    def describe(self) -> str:
        return inputs.describe(self._paths, _SUFFIX)

    def apply(self, database: Dsn, limit_s: float) -> None:
        """
        :raises SchemaFailed: names file, line and statement. All files are read before the first is sent.
        """
        scripts = [(file.path, read_script(file.path)) for file in self._files()]
        deadline = time.monotonic() + limit_s
        for path, statements in scripts:
            self._send(path, statements, database, max(0.0, deadline - time.monotonic()), limit_s)

    def _files(self) -> tuple[inputs.Input, ...]:
        return inputs.inputs(self._paths, _SUFFIX)

    def _send(
        self, path: Path, statements: list[Statement], database: Dsn, left_s: float, limit_s: float
    ) -> None:
        import psycopg

        if not statements:
            return
        with connect(database) as connection, TimeLimit(connection, left_s) as limit:
            for statement in statements:
                try:
                    _execute(connection, statement)
                except psycopg.Error as error:
                    if limit.expired:
                        raise _too_slow(path, statement, limit_s) from error
                    said = failure.Said.of(error)
                    raise failure.of_statement(shown(path), statement.line, statement.text, said) from error
            idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            if limit.expired:
                raise _too_slow(path, statements[-1], limit_s)
            if not idle:
                raise _unfinished(path)


def read_script(path: Path) -> list[Statement]:
    """The statements of a file.

    :raises SchemaFailed: it is not UTF-8, or holds what only psql understands.
    """
    return list(_sendable(path, split(_decoded(path))))


def _decoded(path: Path) -> str:
    content = inputs.read(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SchemaFailed(
            f"{shown(path)}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8",
            cause="the file was saved in another encoding, or is not text (pg_dump -Fc, a compressed file)",
            remedy=f"convert it: iconv -f LATIN1 -t UTF-8 {path.name}; or write the dump as text (pg_dump -Fp)",
        ) from None


def _sendable(path: Path, pieces: Iterator[Statement | Refused]) -> Iterator[Statement]:
    for piece in pieces:
        if isinstance(piece, Refused):
            raise _refused(path, piece)
        yield piece


def _refused(path: Path, piece: Refused) -> SchemaFailed:
    where = f"{shown(path)}, line {piece.line}"
    if piece.command is None:
        return SchemaFailed(
            f"{where}: a statement on the line of COPY … FROM stdin, whose rows begin on the next",
            remedy="put it behind the rows and the line \\. that ends them",
        )
    return SchemaFailed(
        f"{where}: {piece.command} is a command to psql, and no SQL",
        cause="files are sent to the server itself, not through psql",
        remedy=_INSTEAD.get(
            piece.command, "remove it, or let psql run the file: it may be the command of a schema"
        ),
    )


def _execute(connection: psycopg.Connection, statement: Statement) -> None:
    # As bytes: the file's own, whatever client_encoding it sets.
    query = statement.text.encode()
    if statement.data is None:
        connection.execute(query)
        return
    with connection.cursor().copy(query) as copy:
        copy.write(statement.data.encode())


def _too_slow(path: Path, statement: Statement, limit_s: float) -> SchemaFailed:
    return SchemaFailed(
        f"the schema was not built within {limit_s:.3g} s; at the end of that time this ran: {shown(path)}, "
        f"line {statement.line}:\n    {failure.shortened(statement.text)}",
        cause="the statement takes long, or waits for somebody's lock",
        remedy="make it faster, or allow more time",
    )


def _unfinished(path: Path) -> SchemaFailed:
    return SchemaFailed(
        f"{shown(path)} ends within a transaction, so that nothing since its BEGIN is kept",
        cause="a COMMIT is missing at its end",
        remedy="add it; or leave out BEGIN: statements are committed one by one",
    )
