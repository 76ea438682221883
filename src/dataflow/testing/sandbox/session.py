"""One session of the server, in a transaction that is never committed, and the drivers that share it.

Bytes of a driver go in at `Client.feed`, bytes of the server at `Session.feed`; what has to go out is given to
`send` and to the client's `deliver`. What a driver sends up to a Sync, or one Query, is an exchange; exchanges are
forwarded one at a time, and while one driver is in a transaction the others wait.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.statements import Script, Statement, read
from dataflow.testing.sandbox.steps import (
    RELEASE,
    SAVEPOINT,
    UNDO,
    Send,
    Situation,
    State,
    end_of_transaction,
    steps,
)

_ASYNCHRONOUS = b"NSA"
_COPY_DATA = b"dcf"
_FREE = b"CHS"  # no transaction is needed for these: Close, Flush and Sync
_ENDS = b"QSF"
_OURS = b"dataflow_tdd"
_GONE = wire.message(b"E", b"SFATAL\0C08006\0Mthe connection was closed\0\0") + wire.ready(b"I")
_AS_IT_IS = State(explicit=True)
_NOTICE, _ERROR, _READY, _COMPLETE = b"NEZC"
_COPY_IN = b"GW"


class Mark(enum.Enum):
    """Our savepoint; and what is sent before the first statement of a transaction."""

    NONE = (SAVEPOINT,)
    FRESH = ()  # nothing was done since it was set
    USED = (RELEASE, SAVEPOINT)  # what was done is kept
    FAILED = (UNDO,)


@dataclass(slots=True)
class Awaited:
    """What the server will say next.

    :ivar ends: types of the messages that end it. :ivar shown: it goes to the driver, with `tag` in place of the
        server's; `warns`: notices do. :ivar held: its last message waits for what comes behind it.
    :ivar after: the state of the session then; :ivar broken: if there was an error instead.
    :ivar last: the exchange is over then.
    """

    ends: bytes
    shown: bool = True
    tag: str | None = None
    warns: bool = False
    held: bool = False
    after: State | None = None
    broken: State | None = None
    last: bool = False


@dataclass(slots=True)
class Exchange:
    """:ivar planned: the state when all that was forwarded has been done without an error.
    :ivar ended: all of it was forwarded. :ivar refused: its rest is dropped, since something in it must fail.
    :ivar copies: it has a COPY, behind which nothing may be sent before it ended. :ivar later: is sent then.
    """

    client: Client
    planned: State
    begun: bool = False
    ended: bool = False
    refused: bool = False
    copies: bool = False
    failed: bool = False
    copying: bool = False
    held: list[bytes] = field(default_factory=list)
    later: list[Send] = field(default_factory=list)
    moves: tuple[wire.Move, ...] = ()


class Client:
    """One driver.

    :param deliver: is given what the server says to it.
    """

    def __init__(self, session: Session, deliver: Callable[[bytes], None]) -> None:
        self._session = session
        self.deliver = deliver
        self.state = State()
        self.incoming = bytearray()
        self.statements: dict[bytes, Statement] = {}
        self.portals: dict[bytes, Statement] = {}

    def feed(self, data: bytes | memoryview) -> None:
        """What the driver sends."""
        self.incoming += data
        self._session.work()

    def close(self) -> None:
        """It went away; its transaction is undone."""
        self._session.left(self)


class Session:
    """
    :param send: takes bytes for the server.
    :ivar inside: of the transaction; before and after it all goes through as it is.
    :ivar deferred: there are constraints INITIALLY DEFERRED; None: not known.
    :ivar lost: the server has left the transaction that is never committed.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._clients: list[Client] = []
        self._incoming = bytearray()
        self._awaited: deque[Awaited] = deque()
        self._exchange: Exchange | None = None
        self._out: list[bytes] = []
        self._mark = Mark.NONE
        self.inside = False
        self.deferred: bool | None = None
        self._defers = False  # the transaction may have made such constraints
        self.lost = False

    def client(self, deliver: Callable[[bytes], None]) -> Client:
        client = Client(self, deliver)
        self._clients.append(client)
        return client

    def send_to(self, send: Callable[[bytes], None]) -> None:
        """From now on the server is reached in another way."""
        self._send = send

    @property
    def busy(self) -> bool:
        """The server has not answered yet."""
        return self._exchange is not None

    def ask(self, sql: str, answer: Callable[[bytes], None]) -> None:
        """Send a Query of ours, and give the answer as it comes. Nothing else may be under way."""
        assert self._exchange is None, "the session is busy"
        asker = Client(self, answer)
        asker.state = _AS_IT_IS
        self._exchange = Exchange(asker, asker.state, ended=True)
        self._put(wire.query(sql), Awaited(b"Z", last=True))
        self.work()

    def hang_up(self) -> None:
        """The server is gone."""
        exchange, self._exchange = self._exchange, None
        self._awaited.clear()
        if exchange is not None and exchange.client.state is _AS_IT_IS:
            exchange.client.deliver(_GONE)

    def enter(self) -> None:
        """The transaction was begun, or gone back to its beginning."""
        self.inside, self.lost = True, False
        self._forget()

    def settled(self) -> list[str]:
        """What has to be sent before something is done in the transaction itself."""
        mark, self._mark = self._mark, Mark.NONE
        return {Mark.NONE: [], Mark.FAILED: [UNDO, RELEASE]}.get(mark, [RELEASE])

    def leave(self) -> None:
        """It was ended."""
        self.inside = self._defers = False
        self._forget()

    def _forget(self) -> None:
        self._mark = Mark.NONE
        for client in self._clients:
            client.state = State()
            client.portals.clear()

    def left(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        client.deliver = _nobody
        exchange = self._exchange
        if exchange is not None and exchange.client is client:
            if exchange.copying:
                self._put(wire.message(b"f", b"the connection was closed\0"))
            if not exchange.ended:
                self._sync(exchange)
        elif client.state.explicit:
            self._mark = Mark.FAILED
        self.work()

    # What drivers send

    def work(self) -> None:
        """Forward what may be forwarded."""
        while (client := self._next()) is not None:
            message = wire.first(client.incoming)
            assert message is not None, "it was looked at"
            self._forward(client, message)
        if self._out:
            data, self._out = b"".join(self._out), []
            self._send(data)

    def _next(self) -> Client | None:
        """Who may say something, and does."""
        exchange = self._exchange
        if exchange is not None:
            may = not exchange.ended or exchange.copying
            return exchange.client if may and wire.has_one(exchange.client.incoming) else None
        inside = next((client for client in self._clients if client.state.explicit), None)
        waiting = self._clients if inside is None else [inside]
        return next((client for client in waiting if wire.has_one(client.incoming)), None)

    def _forward(self, client: Client, message: bytes) -> None:
        kind = message[:1]
        if kind == b"X":
            client.close()
        elif kind in _COPY_DATA:
            self._put(message)
        else:
            exchange = self._exchange
            if exchange is None:
                exchange = self._exchange = Exchange(client, client.state if self.inside else _AS_IT_IS)
                if not self.inside:
                    self._awaited.append(Awaited(b"Z", last=True))
            if not self.inside:
                exchange.ended = kind in _ENDS
                self._put(message)
            elif kind == b"Q":
                self._query(exchange, message)
            elif kind == b"S":
                self._sync(exchange)
            elif not exchange.refused:
                if not exchange.begun and kind not in _FREE:
                    exchange.begun = True
                    self._inject([] if exchange.planned.explicit else self._before())
                _HANDLERS.get(kind, Session._other)(self, exchange, message)

    def _put(self, data: bytes, awaited: Awaited | None = None) -> None:
        self._out.append(data)
        if awaited is not None:
            self._awaited.append(awaited)

    def _before(self) -> list[Send]:
        """Before the first statement of a transaction."""
        sends = [Send(sql) for sql in self._mark.value]
        self._mark = Mark.USED
        return sends

    def _behind(self, exchange: Exchange) -> list[Send]:
        """Behind the last statement of one that nobody has begun, and nobody ends."""
        state = exchange.planned
        now = Situation(state, True, self._checks)
        return (
            []
            if state.explicit
            else [Send(sql, after=State(), broken=State()) for sql in end_of_transaction(now)]
        )

    @property
    def _checks(self) -> bool:
        return self._defers or self.deferred is not False

    def _note(self, script: Script) -> None:
        self._defers = self._defers or script.defers

    # One Query

    def _query(self, exchange: Exchange, message: bytes) -> None:
        exchange.ended = True
        script = read(message[5:-1].decode("utf-8", "surrogateescape"))
        self._note(script)
        if not exchange.planned.explicit and not exchange.begun and (before := self._before()):
            # Apart from the rest, of which nothing is done if it cannot be parsed.
            self._put(_joined(before), Awaited(b"Z", shown=False))
        if script.matters:
            self._rewritten(exchange, script)
            return
        behind = self._behind(exchange)
        self._put(message, Awaited(b"Z", held=bool(behind), last=not behind))
        if script.copies:
            exchange.later = behind
        elif behind:
            self._put(_joined(behind), Awaited(b"Z", shown=False, last=True))

    def _rewritten(self, exchange: Exchange, script: Script) -> None:
        sends: list[Send] = []
        alone = len(script.statements) == 1
        for place, statement in enumerate(script.statements):
            if not exchange.planned.explicit and self._mark is Mark.NONE:
                sends += self._before()
            sends += self._steps(exchange, statement, alone=alone)
            if exchange.refused:  # the server reads the rest all the same
                sends += (Send(rest.text, shown=True) for rest in script.statements[place + 1 :])
                break
        behind = self._behind(exchange)
        self._awaited.extend(map(_awaited, sends))
        if behind and self._awaited[-1].shown:
            self._awaited[-1].held = True
        self._awaited.extend(map(_awaited, behind))
        sends += behind
        exchange.moves = tuple(_moves(sends, script))
        self._put(_joined(sends), Awaited(b"Z", last=True))

    def _steps(self, exchange: Exchange, statement: Statement, *, alone: bool) -> Sequence[Send]:
        found = steps(statement, Situation(exchange.planned, alone, self._checks))
        exchange.planned = found.state
        exchange.refused = found.fails
        if found.ends:
            self._mark = Mark.NONE
        return found.sends

    # The extended protocol

    def _parse(self, exchange: Exchange, message: bytes) -> None:
        (name, text), _ = wire.names(message, 2)
        script = read(text.decode("utf-8", "surrogateescape"))
        self._note(script)
        exchange.copies = exchange.copies or script.copies
        exchange.client.statements.pop(name, None)
        if len(script.statements) == 1 and script.matters:
            statement = exchange.client.statements[name] = script.statements[0]
            if statement.replaced:
                # It can be parsed, also where nothing else is any more, and is never executed.
                message = wire.parse(name, UNDO)
        self._put(message, Awaited(b"1"))

    def _bind(self, exchange: Exchange, message: bytes) -> None:
        (portal, name), _ = wire.names(message, 2)
        client = exchange.client
        client.portals.pop(portal, None)
        if name in client.statements:
            client.portals[portal] = client.statements[name]
        self._put(message, Awaited(b"2"))

    def _describe(self, exchange: Exchange, message: bytes) -> None:
        self._put(message, Awaited(b"Tn"))

    def _execute(self, exchange: Exchange, message: bytes) -> None:
        (portal,), _ = wire.names(message, 1)
        statement = exchange.client.portals.get(portal)
        if statement is None:
            self._put(message, Awaited(b"CsI"))
            return
        for send in self._steps(exchange, statement, alone=True):
            if send.sql == statement.text and not statement.replaced:
                self._put(message, _awaited(send, b"CsI"))
            else:
                self._inject([send])

    def _close(self, exchange: Exchange, message: bytes) -> None:
        known = exchange.client.statements if message[5:6] == b"S" else exchange.client.portals
        known.pop(wire.names(message, 1, 6)[0][0], None)
        self._put(message, Awaited(b"3"))

    def _flush(self, exchange: Exchange, message: bytes) -> None:
        self._put(message)

    def _other(self, exchange: Exchange, message: bytes) -> None:
        """A function call, which ends by itself, or what we do not know."""
        exchange.ended = True
        self._put(message, Awaited(b"Z", last=True))

    def _sync(self, exchange: Exchange) -> None:
        exchange.ended = True
        if exchange.begun and not exchange.refused and not exchange.copies:
            self._inject(self._behind(exchange))
        self._put(wire.SYNC, Awaited(b"Z", last=True))

    def _inject(self, sends: Iterable[Send]) -> None:
        """Statements of ours between messages of a driver, whose unnamed statement stays."""
        for send in sends:
            # What an error left of an earlier one; it is no error if nothing was left.
            self._put(wire.close(b"P", _OURS), Awaited(b"3", shown=False))
            self._put(wire.close(b"S", _OURS), Awaited(b"3", shown=False))
            self._put(wire.parse(_OURS, send.sql), Awaited(b"1", shown=False))
            self._put(wire.bind(_OURS, _OURS), Awaited(b"2", shown=False))
            self._put(wire.execute(_OURS), _awaited(send))
            self._put(wire.close(b"P", _OURS), Awaited(b"3", shown=False))

    # What the server says

    def feed(self, data: bytes | memoryview) -> None:
        """What the server says."""
        self._incoming += data
        said: list[bytes] = []
        speaker: Client | None = None
        for kind, message in wire.cut(self._incoming):
            exchange = self._exchange
            if exchange is None:
                self._unasked(message)
                continue
            if speaker is not exchange.client:
                speaker = _delivered(speaker, said, exchange.client)
            self._heard(exchange, kind, message, said)
        _delivered(speaker, said, None)
        self.work()

    def _unasked(self, message: bytes) -> None:
        """The server's last words, or a setting that somebody changed for all."""
        for client in list(self._clients):
            client.deliver(message)

    def _heard(self, exchange: Exchange, kind: int, message: bytes, said: list[bytes]) -> None:
        awaited = self._awaited[0]
        if kind in _ASYNCHRONOUS:
            if awaited.shown or awaited.warns or kind != _NOTICE:
                said += _released(exchange)
                said.append(message)
        elif kind == _ERROR:
            self._error(exchange, awaited, message, said)
        elif kind in awaited.ends:
            self._awaited.popleft()
            if kind == _READY:
                self._ready(exchange, awaited, message, said)
                return
            if awaited.after is not None:
                exchange.client.state = awaited.after
            if awaited.shown:
                ending = message if awaited.tag is None else wire.complete(awaited.tag.encode())
                (exchange.held if awaited.held else said).append(ending)
        elif awaited.shown:
            if kind in _COPY_IN:
                self._copy_in(exchange)
            said += _released(exchange)
            if awaited.held and kind == _COMPLETE:
                exchange.held.append(message)
            else:
                said.append(message)

    def _error(self, exchange: Exchange, awaited: Awaited, message: bytes, said: list[bytes]) -> None:
        """What was sent behind it is skipped by the server up to the next Sync."""
        if not exchange.failed:
            if awaited.shown:
                said += _released(exchange)
            exchange.held.clear()
            said.append(wire.moved(message, exchange.moves) if exchange.moves else message)
            if awaited.broken is not None:
                exchange.client.state = awaited.broken
        exchange.failed = True
        exchange.copying = False
        while self._awaited and _READY not in self._awaited[0].ends:
            self._awaited.popleft()

    def _ready(self, exchange: Exchange, awaited: Awaited, message: bytes, said: list[bytes]) -> None:
        if not awaited.last:
            if awaited.held and exchange.later:
                self._put(_joined(exchange.later), Awaited(b"Z", shown=False, last=True))
                exchange.later = []
            return
        self._exchange = None
        said += _released(exchange)
        client = exchange.client
        status = message[5:6]
        if not self.inside or client.state is _AS_IT_IS:
            said.append(message)
            return
        self.lost = self.lost or status == b"I"
        if client.state.explicit:
            client.state = client.state._replace(failed=status == b"E")
            if exchange.failed:
                self._mark = Mark.USED
        else:
            client.state = State()
            if exchange.failed:
                self._mark = Mark.FAILED
            status = b"I"
        said.append(wire.ready(status))
        if client not in self._clients and client.state.explicit:
            self._mark = Mark.FAILED

    def _copy_in(self, exchange: Exchange) -> None:
        """From now on the server takes rows, and overlooks a Sync that came with the statement."""
        exchange.copying = True
        if exchange.begun:
            while len(self._awaited) > 1:
                del self._awaited[1]
            exchange.ended = False


def _nobody(_said: bytes) -> None:
    """Listens to what is said to a driver that went away."""


def _delivered(speaker: Client | None, said: list[bytes], following: Client | None) -> Client | None:
    if speaker is not None and said:
        speaker.deliver(b"".join(said))
    said.clear()
    return following


def _released(exchange: Exchange) -> list[bytes]:
    held, exchange.held = exchange.held, []
    return held


def _awaited(send: Send, ends: bytes = b"CI") -> Awaited:
    return Awaited(ends, send.shown, send.tag, send.warns, after=send.after, broken=send.broken)


def _moves(sends: Iterable[Send], script: Script) -> Iterator[wire.Move]:
    """Where the driver's statements stand in the string that is sent."""
    left = list(script.statements)
    position = 0
    for send in sends:
        at = next((place for place, statement in enumerate(left) if send.sql == statement.text), None)
        if send.shown and at is not None:
            yield wire.Move(position, position + len(send.sql), left[at].start - position)
            del left[: at + 1]
        position += len(send.sql) + 1


def _joined(sends: Iterable[Send]) -> bytes:
    return wire.query(";".join(send.sql for send in sends))


_HANDLERS: dict[bytes, Callable[[Session, Exchange, bytes], None]] = {
    b"P": Session._parse,
    b"B": Session._bind,
    b"D": Session._describe,
    b"E": Session._execute,
    b"C": Session._close,
    b"H": Session._flush,
}
