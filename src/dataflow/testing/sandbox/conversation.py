"""What is under way between one driver and the server, and what is put into its way. No I/O."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.prepared import Earlier, Prepared
from dataflow.testing.sandbox.statements import Script, Statement
from dataflow.testing.sandbox.steps import (
    RELEASE,
    SAVEPOINT,
    UNDO,
    Send,
    Situation,
    State,
    end_of_transaction,
)

_OURS = b"dataflow_tdd"
ENDS = b"QSF"  # kinds of messages that end an exchange


class Mark(enum.Enum):
    """Our savepoint; and what is sent before the first statement of a transaction."""

    NONE = (SAVEPOINT,)
    USED = (RELEASE, SAVEPOINT)  # what was done is kept
    FAILED = (UNDO,)


class Awaited(NamedTuple):
    """What the server will say next.

    :ivar ends: types of the messages that end it. :ivar shown: it goes to the driver, with `tag` in place of the
        server's; `warns`: notices do. :ivar held: its last message waits for what comes behind it.
    :ivar after: the state of the session then; :ivar broken: if there was an error instead.
    :ivar earlier: what is so again if this does not come to pass. :ivar last: the exchange is over then.
    :ivar silent: and the driver is not told, since it did not end it.
    :ivar exactly: all that is said if nothing is out of the ordinary, and nobody has to look at it.
    """

    ends: bytes
    shown: bool = True
    tag: str | None = None
    warns: bool = False
    held: bool = False
    after: State | None = None
    broken: State | None = None
    last: bool = False
    silent: bool = False
    earlier: Earlier | None = None
    exactly: bytes = b""


@dataclass(eq=False, slots=True)
class Driver:
    """One who uses the session.

    :ivar deliver: is given what the server says to it. :ivar gone: is called when there is none.
    :ivar incoming: a message that is not all there yet. :ivar messages: what it sent, and was not forwarded yet.
    :ivar prefix: of its names in the session, where others may have the same.
    :ivar prepared: what it has parsed, by its own names. :ivar number: which one it is, from 1.
    :ivar portals: those of statements that concern transactions.
    :ivar skipping: what it sends is dropped, up to the end of its exchange.
    """

    deliver: Callable[[bytes], None]
    gone: Callable[[], None] = lambda: None
    state: State = field(default_factory=State)
    incoming: bytearray = field(default_factory=bytearray)
    messages: deque[bytes] = field(default_factory=deque)
    portals: dict[bytes, Statement] = field(default_factory=dict)
    skipping: bool = False
    prefix: bytes = b""
    prepared: dict[bytes, Prepared] = field(default_factory=dict)
    number: int = 0

    def restore(self, earlier: Earlier) -> None:
        if earlier.prepared is None:
            self.prepared.pop(earlier.name, None)
        else:
            self.prepared[earlier.name] = earlier.prepared


@dataclass(slots=True)
class Exchange:
    """:ivar planned: the state when all that was forwarded has been done without an error.
    :ivar ended: all of it was forwarded. :ivar closing: nothing of it was under way, and we ended it.
    :ivar refused: its rest is dropped, since something in it must fail.
    :ivar bound: it has a portal. :ivar executed: a statement ran.
    :ivar copies: it has a COPY, behind which nothing may be sent before it ended. :ivar later: is sent then.
    :ivar texts: what was sent in it to be parsed, by name, also if it is dropped. :ivar parsed: the last of them.
    :ivar described: statements of which the server will tell the parameters.
    """

    driver: Driver
    planned: State
    begun: bool = False
    ended: bool = False
    closing: bool = False
    refused: bool = False
    bound: bool = False
    executed: bool = False
    copies: bool = False
    failed: bool = False
    copying: bool = False
    held: list[bytes] = field(default_factory=list)
    later: list[Send] = field(default_factory=list)
    moves: tuple[wire.Move, ...] = ()
    texts: dict[bytes, Prepared] = field(default_factory=dict)
    parsed: Prepared | None = None
    described: deque[bytes] = field(default_factory=deque)

    def text_of(self, name: bytes) -> Prepared | None:
        """What the driver executes by that name, as far as it knows."""
        return self.texts.get(name) or self.driver.prepared.get(name)


def nothing(*_said: bytes) -> None:
    """Nobody wants to be told."""


def _begun(mark: Mark) -> Awaited:
    """What is said when a transaction was begun."""
    tags = (sql.partition(" ")[0].encode() for sql in mark.value)
    return Awaited(b"Z", shown=False, exactly=b"".join(map(wire.complete, tags)) + wire.ready(b"T"))


# What is awaited most often, of drivers and of ours: behind Bind, Describe, Execute and Close, and at the end.
BOUND, DESCRIBED, EXECUTED, CLOSED = (Awaited(ends) for ends in (b"2", b"Tn", b"CsI", b"3"))
LAST = Awaited(b"Z", last=True)
OUR_CLOSED, _OUR_PARSED, _OUR_BOUND = (Awaited(ends, shown=False) for ends in (b"3", b"1", b"2"))
OURS_LAST = Awaited(b"Z", shown=False, last=True)

_BEGINS = {mark: (wire.query(";".join(mark.value)), _begun(mark)) for mark in Mark}
_IDLE = State()


class Conversation:
    """What was sent to the server, and is awaited from it.

    :param drivers: of the session.
    :ivar unnamed_of: whose unnamed statement the session has; a Query takes that away.
    :ivar out: bytes that are to be sent. :ivar mark: our savepoint when all of it has been done.
    :ivar deferred: there are constraints INITIALLY DEFERRED; None: not known. :ivar defers: the transaction may
        have made some. :ivar prepares: it may have prepared statements by SQL.
    """

    def __init__(self, drivers: Sequence[Driver]) -> None:
        self.drivers = drivers
        self.out: list[bytes] = []
        self.awaited: deque[Awaited] = deque()
        self.mark = Mark.NONE
        self.deferred: bool | None = None
        self.defers = False
        self.prepares = False
        self.unnamed_of: Driver | None = None

    def put(self, data: bytes, awaited: Awaited | None = None) -> None:
        self.out.append(data)
        if awaited is not None:
            self.awaited.append(awaited)

    def inject(self, sends: Iterable[Send]) -> None:
        """Statements of ours between messages of a driver, whose unnamed statement stays."""
        for send in sends:
            # What an error left of an earlier one; it is no error if nothing was left.
            self.put(wire.close(b"P", _OURS), OUR_CLOSED)
            self.put(wire.close(b"S", _OURS), OUR_CLOSED)
            self.put(wire.parse(_OURS, send.sql), _OUR_PARSED)
            self.put(wire.bind(_OURS, _OURS), _OUR_BOUND)
            self.put(wire.execute(_OURS), awaited(send))
            self.put(wire.close(b"P", _OURS), OUR_CLOSED)

    def begin(self) -> None:
        """Before the first statement of a transaction, apart from it."""
        self.put(*_BEGINS[self.mark])
        self.mark, self.unnamed_of = Mark.USED, None

    def closing(self) -> Iterator[bytes]:
        """Names of statements that are there if what is awaited does not come to pass."""
        return (awaited.earlier.name for awaited in self.awaited if awaited.earlier and awaited.earlier.prepared)

    def without_ours(self, said: bytes) -> bytes:
        """What the server says, behind that a transaction was begun."""
        exactly = self.awaited[0].exactly if self.awaited else b""
        if not exactly or not said.startswith(exactly):
            return said
        self.awaited.popleft()
        return said[len(exactly) :]

    def before(self) -> list[Send]:
        """Before the first statement of a transaction."""
        sends = [Send(sql) for sql in self.mark.value]
        self.mark = Mark.USED
        return sends

    def behind(self, state: State) -> list[Send]:
        """Behind the last statement of one that nobody has begun, and nobody ends."""
        if state.explicit or (state == _IDLE and not self.checks):
            return []
        ends = end_of_transaction(Situation(state, True, self.checks))
        return [Send(sql, after=State(), broken=State()) for sql in ends]

    @property
    def checks(self) -> bool:
        """Constraints may be deferred."""
        return self.defers or self.deferred is not False

    def spared(self, driver: Driver) -> tuple[str, ...]:
        """Names of the statements that others have prepared, as the session has them."""
        others = (other for other in self.drivers if other is not driver)
        return tuple((other.prefix + name).decode() for other in others for name in other.prepared if name)

    def note(self, script: Script) -> None:
        self.defers = self.defers or script.defers
        self.prepares = self.prepares or script.prepares


def skip(driver: Driver) -> None:
    """Drop what it sent up to the end of an exchange that was refused."""
    while driver.skipping and driver.messages:
        if driver.messages.popleft()[:1] in ENDS:
            driver.skipping = False
            driver.deliver(wire.ready(b"I"))


def released(exchange: Exchange) -> list[bytes]:
    """What was held back, and is said now."""
    held, exchange.held = exchange.held, []
    return held


def awaited(send: Send, ends: bytes = b"CI") -> Awaited:
    return Awaited(ends, send.shown, send.tag, send.warns, after=send.after, broken=send.broken)


def joined(sends: Iterable[Send]) -> bytes:
    """In one Query."""
    return wire.query(";".join(send.sql for send in sends))
