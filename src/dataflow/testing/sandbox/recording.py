"""The statements that drivers sent: the last of them, and how many there were of each. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import overload

from dataflow.testing.masking import MASK, is_secret_name, mask
from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.prepared import MOST_TEXT, Prepared
from dataflow.testing.sandbox.statements import Kind, read
from dataflow.testing.sandbox.values import Given
from dataflow.testing.sql.lexer import tokens

# Statements of a test that are kept; different ones that are counted.
MOST_KEPT = 1_000
MOST_DIFFERENT = 1_000
# Characters of the slowest one in the summary of a run.
MOST_SHOWN = 200
# In place of the text of those that are too many to be told apart; they count all the same.
OTHERS = b"-- other statements"

TextOf = Callable[[bytes], Prepared | None]

_CONTROL = frozenset({Kind.BEGIN, Kind.COMMIT, Kind.ROLLBACK, Kind.SAVEPOINT})


class SentStatement:
    """A statement, or a string of several, that was sent to the server.

    :ivar phase: of the test: ``setup``, ``call`` or ``teardown``; empty without pytest.
    :ivar connection: 1 for that of the test, more for others that share its transaction.
    :ivar at_s: when, in seconds since the test had its connection. :ivar duration_ms: until the server had
        answered; None: it has not yet. :ivar times: how often it was executed at once, as `executemany` does.
    :ivar error: SQLSTATE, if it failed.
    """

    __slots__ = ("_given", "_sent", "_text", "at_s", "connection", "duration_ms", "error", "phase", "times")

    def __init__(
        self, text: bytes, given: Given | None, sent: float, *, phase: str, at_s: float, connection: int
    ) -> None:
        self._text = text
        self._given = given
        self._sent = sent
        self.phase = phase
        self.connection = connection
        self.at_s = at_s
        self.duration_ms: float | None = None
        self.times = 1
        self.error: str | None = None

    @property
    def sql(self) -> str:
        """As it was sent, up to 4,000 characters, without passwords. Where it names a password, secret or token,
        all strings in it are hidden.
        """
        return as_shown(self._text)

    @property
    def parameters(self) -> list[str]:
        """As SQL would write them, shortened; hidden where the statement names a password, secret or token."""
        if self._given is None:
            return []
        return self._given.shown(hidden=is_secret_name(self._text.decode("utf-8", "replace")))

    @property
    def controls_transaction(self) -> bool:
        """It does nothing but BEGIN, COMMIT, ROLLBACK, SAVEPOINT and the like."""
        return controls_transaction(self._text)

    def repeats(self, text: bytes) -> bool:
        return self._text is text

    def age_s(self, now: float) -> float:
        """Seconds since it was sent."""
        return now - self._sent

    def answered(self, now: float) -> None:
        self.duration_ms = (now - self._sent) * 1e3

    def __repr__(self) -> str:
        return f"<SentStatement {self.sql[:60]!r}, {self.phase or 'no phase'}>"


def as_shown(text: bytes) -> str:
    """A statement without secrets."""
    sql = text.decode("utf-8", "replace")
    return mask(_without_strings(sql) if is_secret_name(sql) else sql)


def _without_strings(sql: str) -> str:
    """Also without one that has no end, where the statement was cut."""
    parts: list[str] = []
    position = 0
    for token in tokens(sql):
        if token.kind in ("quoted", "open") and not token.text.startswith('"'):
            parts += sql[position : token.start], f"'{MASK}'"
            position = token.stop if token.kind == "quoted" else len(sql)
        if position == len(sql):
            break
    return "".join([*parts, sql[position:]])


def controls_transaction(text: bytes) -> bool:
    statements = read(text.decode("utf-8", "replace")).statements
    return bool(statements) and all(statement.kind in _CONTROL for statement in statements)


class Statements(Sequence[SentStatement]):
    """The statements of a test so far; of more than 1,000 the last ones. :ivar total: how many there were."""

    def __init__(self, kept: Iterable[SentStatement], total: int) -> None:
        self._kept = tuple(kept)
        self.total = total

    @property
    def queries(self) -> tuple[SentStatement, ...]:
        """Without BEGIN, COMMIT, ROLLBACK, SAVEPOINT and the like."""
        return tuple(statement for statement in self._kept if not statement.controls_transaction)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, place: int) -> SentStatement: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[SentStatement, ...]: ...
    def __getitem__(self, place: int | slice) -> SentStatement | tuple[SentStatement, ...]:
        return self._kept[place]

    def __repr__(self) -> str:
        return f"<{self.total} statements: {list(self._kept[-3:])}>"


class Recorder:
    """
    :param phase: says which phase of the test it is.
    :param is_housekeeping: says of a text that the driver sends it for itself; it is not recorded.
    :ivar kept: the last statements. :ivar counts: by phase and text, how often it was executed.
    :ivar busy_s: seconds that the server took for them.
    """

    def __init__(
        self, phase: Callable[[], str], is_housekeeping: Callable[[bytes], bool] = lambda _text: False
    ) -> None:
        self._phase = phase
        self._is_housekeeping = is_housekeeping
        self._began = perf_counter()
        self._pending: list[SentStatement] = []
        self._bound: dict[bytes, tuple[Prepared, bytes]] = {}
        self._error: str | None = None
        self._repeats = False
        self.kept: deque[SentStatement] = deque(maxlen=MOST_KEPT)
        self.total = 0
        self.busy_s = 0.0
        self.counts: dict[tuple[str, bytes], int] = {}  # a Counter would take 2 µs of each test

    def sent(self, kind: bytes, message: bytes, prepared: TextOf, connection: int) -> None:
        """By the driver of that number. :param prepared: what it has by a name."""
        if kind == b"Q":
            self._add(message[5:-1][:MOST_TEXT], None, connection)
        elif kind == b"B":
            self._bind(message, prepared)
        elif kind == b"E":
            self._execute(message, connection)
        elif kind == b"D":
            self._repeats = False  # `executemany` of asyncpg describes nothing; pipelines do

    @property
    def statements(self) -> Statements:
        return Statements(self.kept, self.total)

    def failed(self, sqlstate: str, parsed: Prepared | None, connection: int) -> None:
        """:param parsed: what the driver wanted to prepare; if that failed, it was not executed."""
        if not self._pending and parsed is not None:
            self._add(parsed.text, None, connection)
        self._error = self._error or sqlstate

    def answered(self) -> None:
        """All that was sent up to here."""
        if self._pending:
            now = perf_counter()
            self.busy_s += self._pending[0].age_s(now)
            for statement in self._pending:
                statement.answered(now)
            self._pending[-1].error = self._error
            self._pending.clear()
        self._error = None

    @property
    def slowest(self) -> str | None:
        """What took longest of the last statements."""
        timed = [statement for statement in self.kept if statement.duration_ms is not None]
        if not timed:
            return None
        slowest = max(timed, key=lambda statement: statement.duration_ms or 0.0)
        return f"{slowest.duration_ms:.0f} ms: {' '.join(slowest.sql.split())[:MOST_SHOWN]}"

    def executed(self, prepared: Prepared, bind: bytes, connection: int) -> None:
        """A statement, once, by the unnamed portal. :param bind: the message that has its parameters."""
        self._bound.pop(b"", None)
        self._add(prepared.text, Given(bind, prepared.types), connection)
        self._repeats = True

    def _bind(self, message: bytes, prepared: TextOf) -> None:
        portal = wire.name(message)
        name = wire.name(message, len(portal) + 6)
        if (found := prepared(name)) is not None and len(self._bound) < MOST_KEPT:
            self._bound[portal] = found, message

    def _execute(self, message: bytes, connection: int) -> None:
        portal = wire.name(message)
        # A cursor executes its portal again for more rows.
        prepared, bind = self._bound.pop(portal, (None, b""))
        if prepared is None:
            return
        last = self._pending[-1] if self._pending else None
        if last is not None and self._repeats and last.repeats(prepared.text):
            last.times += 1
        else:
            self._add(prepared.text, Given(bind, prepared.types), connection)
        self._repeats = True

    def _add(self, text: bytes, given: Given | None, connection: int) -> None:
        if not text.strip() or self._is_housekeeping(text):
            return
        now, phase = perf_counter(), self._phase()
        statement = SentStatement(text, given, now, phase=phase, at_s=now - self._began, connection=connection)
        self.kept.append(statement)
        self._pending.append(statement)
        self.total += 1
        key = phase, text
        if key not in self.counts and len(self.counts) >= MOST_DIFFERENT:
            if controls_transaction(text):
                return
            key = phase, OTHERS
        self.counts[key] = self.counts.get(key, 0) + 1
