"""One session of the server, in a transaction that is never committed, and the drivers that share it.

Bytes of a driver go in at `Client.feed`, bytes of the server at `Session.feed`; what has to go out is given to
`send` and to the driver's `deliver`. What a driver sends up to a Sync, or one Query, is an exchange. Exchanges go
one at a time, and while one driver is in a transaction the others wait.
"""

from __future__ import annotations

from collections.abc import Callable

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.answer import Answer
from dataflow.testing.sandbox.client import Client
from dataflow.testing.sandbox.conversation import (
    LAST,
    OUR_CLOSED,
    OURS_LAST,
    Awaited,
    Conversation,
    Driver,
    Exchange,
    Mark,
    joined,
    nothing,
    released,
)
from dataflow.testing.sandbox.forwarding import forward, note, pass_on, sync
from dataflow.testing.sandbox.hearing import delivered, failed, heard
from dataflow.testing.sandbox.ordinary import ordinary
from dataflow.testing.sandbox.recording import Recorder
from dataflow.testing.sandbox.steps import RELEASE, UNDO, State

_COPY_DATA = b"dcf"
_AS_IT_IS = State(explicit=True)
_ERROR, _READY = b"EZ"


class Session:
    """
    :param send: takes bytes for the server.
    :ivar inside: of the transaction; before and after it all goes through as it is.
    :ivar used: a driver has sent something.
    :ivar lost: the server has left the transaction that is never committed.
    :ivar recorder: is told what drivers send.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._drivers: list[Driver] = []
        self._number = 0
        self._prepared: set[bytes] = set()  # by drivers that went away
        self._incoming = bytearray()
        self._exchange: Exchange | None = None
        self._question: tuple[str, Answer] | None = None
        self._asked: Answer | None = None
        self._talk = Conversation(self._drivers)
        self.inside = self.lost = self.used = False
        self.recorder: Recorder | None = None

    def client(self, deliver: Callable[[bytes], None], gone: Callable[[], None] = nothing) -> Client:
        """A new driver. :param deliver: is given what the server says to it."""
        self._number += 1
        # The first one is that of the test; it has been there before others were.
        prefix = b"d%d_" % self._number if self._drivers else b""
        driver = Driver(deliver, gone, prefix=prefix, number=len(self._drivers) + 1)
        self._drivers.append(driver)
        return Client(self, driver)

    def send_to(self, send: Callable[[bytes], None]) -> None:
        """From now on the server is reached in another way."""
        self._send = send

    @property
    def prepares(self) -> bool:
        """Statements may have been prepared by SQL, which outlive the transaction."""
        return self._talk.prepares

    @property
    def isolated(self) -> bool:
        """What drivers do is in the transaction."""
        return self.inside and not self.lost

    def works_for(self, driver: Driver) -> bool:
        return self._exchange is not None and self._exchange.driver is driver

    def rival(self, driver: Driver) -> Driver | None:
        """Another one that is at work, or in a transaction."""
        if self._exchange is not None:
            return None if self._exchange.driver is driver else self._exchange.driver
        if self._asked is not None:
            return Driver(nothing)  # we are
        return next((other for other in self._drivers if other is not driver and other.state.explicit), None)

    @property
    def abandoned(self) -> bool:
        """What is under way is nobody's any more."""
        return not self.free and self._exchange is not None and self._exchange.driver not in self._drivers

    @property
    def busy(self) -> bool:
        """The server has not answered yet."""
        return self._exchange is not None or self._asked is not None

    @property
    def free(self) -> bool:
        """Nothing is under way, apart from the end of an exchange that its driver has left open."""
        if self._exchange is None:
            return self._asked is None
        return self._exchange.closing or self._idle(self._exchange)

    def ask(self, sql: str, answer: Answer) -> None:
        """Send a Query of ours. The session must be free."""
        assert self.free, "the session is busy"
        self._question = sql, answer
        if self._exchange is not None and not self._exchange.closing:
            self._close(self._exchange)
        self.work()

    def _ask(self, sql: str, answer: Answer) -> None:
        self._question = None
        if self._prepared:
            self._free_names()
            self._talk.put(wire.SYNC)
            answer.ready += 1
        self._asked = answer
        self._talk.unnamed_of = None
        self._talk.put(wire.query(sql))

    def _free_names(self, awaited: Awaited | None = None) -> None:
        """Of statements whose drivers went away: the next one may call its own like that."""
        for name in self._prepared:
            self._talk.put(wire.close(b"S", name), awaited)
        self._prepared.clear()

    def hang_up(self) -> None:
        """The server is gone."""
        asked = [self._asked, self._question[1] if self._question is not None else None]
        self._asked = self._question = self._exchange = None
        self._talk.awaited.clear()
        for answer in asked:
            if answer is not None:
                answer.hang_up()
        for driver in list(self._drivers):
            driver.gone()

    def enter(self, *, deferred: bool | None = None) -> None:
        """The transaction was begun, or gone back to its beginning.

        :param deferred: there are constraints INITIALLY DEFERRED; None: it is as before, or not known.
        """
        if deferred is not None:
            self._talk.deferred = deferred
        self.inside, self.lost = True, False
        self._forget()

    def settled(self) -> list[str]:
        """What has to be sent before something is done in the transaction itself."""
        mark, self._talk.mark = self._talk.mark, Mark.NONE
        return {Mark.NONE: [], Mark.FAILED: [UNDO, RELEASE]}.get(mark, [RELEASE])

    def leave(self) -> None:
        """It was ended."""
        self.inside = self.lost = self.used = self._talk.defers = self._talk.prepares = False
        self._forget()

    def _forget(self) -> None:
        self._talk.mark = Mark.NONE
        for driver in self._drivers:
            driver.state = State()
            driver.portals.clear()

    def left(self, driver: Driver) -> None:
        if driver not in self._drivers:
            return
        self._drivers.remove(driver)
        self._prepared.update(driver.prefix + name for name in driver.prepared if name)
        if self.works_for(driver):  # some of what it closes may be skipped
            self._prepared.update(driver.prefix + name for name in self._talk.closing() if name)
        driver.deliver = nothing
        exchange = self._exchange
        if exchange is not None and exchange.driver is driver:
            if exchange.copying:
                self._talk.put(wire.message(b"f", b"the connection was closed\0"))
            if not exchange.ended:
                exchange.closing = self._idle(exchange)
                sync(self._talk, exchange)
        elif driver.state.explicit:
            self._talk.mark = Mark.FAILED
        self.work()

    # What drivers send

    def work(self) -> None:
        """Forward what may be forwarded."""
        if self._question is not None and not self.busy:
            self._ask(*self._question)
        while (driver := self._next()) is not None:
            self._forward(driver)
        if self._talk.out:
            data, self._talk.out = b"".join(self._talk.out), []
            self._send(data)

    def _next(self) -> Driver | None:
        """Who may say something, and does."""
        exchange = self._exchange
        if exchange is not None:
            may = not exchange.ended or exchange.copying
            if may and exchange.driver.messages:
                return exchange.driver
            self._let_others(exchange)
            return None
        if self._asked is not None:
            return None
        first: Driver | None = None
        for driver in self._drivers:
            if driver.state.explicit:
                return driver if driver.messages else None
            if first is None and driver.messages:
                first = driver
        return first

    def _let_others(self, exchange: Exchange) -> None:
        """A driver may leave it open what it does with a statement that it has prepared. Others need not wait."""
        others = any(driver.messages for driver in self._drivers if driver is not exchange.driver)
        if others and self._idle(exchange):
            self._close(exchange)

    def _idle(self, exchange: Exchange) -> bool:
        return not (exchange.ended or exchange.bound or exchange.failed or self._talk.awaited)

    def _close(self, exchange: Exchange) -> None:
        exchange.ended = exchange.closing = True
        self._talk.put(wire.SYNC, Awaited(b"Z", last=True, silent=True))

    def _forward(self, driver: Driver) -> None:
        """What it has sent, up to the end of an exchange."""
        exchange, messages = self._exchange, driver.messages
        while messages:
            kind = messages[0][:1]
            if kind == b"X":
                messages.popleft()
                self.left(driver)
                return
            if exchange is None and kind not in _COPY_DATA:
                exchange = self._exchange = self._begun(driver)
                if exchange.ended:
                    return
            message = messages.popleft()
            if kind in _COPY_DATA:
                self._talk.put(message)
                if exchange is not None and kind != b"d":
                    exchange.copying = False
            elif exchange is not None:
                note(self.recorder, exchange, kind, message)
                do = pass_on if exchange.planned is _AS_IT_IS else forward
                do(self._talk, exchange, kind, message)
            if exchange is not None and exchange.ended and not exchange.copying:
                return

    def _begun(self, driver: Driver) -> Exchange:
        self.used = True
        self._free_names(OUR_CLOSED)
        if self.isolated:
            return ordinary(self._talk, driver, self.recorder) or Exchange(driver, driver.state)
        self._talk.awaited.append(LAST)
        return Exchange(driver, _AS_IT_IS)

    # What the server says

    def feed(self, data: bytes) -> None:
        """What the server says."""
        if self._asked is not None:
            self._incoming += data
            if not self._answered(self._asked):
                return
            data = b""
        elif not self._incoming:
            data = self._talk.without_ours(data)
        said: list[bytes] = []
        speaker: Driver | None = None
        for message in wire.taken(self._incoming, data, rows_together=True):
            exchange = self._exchange
            if exchange is None or not self._talk.awaited:
                self._unasked(message)
                continue
            if speaker is not exchange.driver:
                speaker = delivered(speaker, said, exchange.driver)
            self._heard(exchange, message[0], message, said)
        delivered(speaker, said, None)
        self.work()

    def _answered(self, question: Answer) -> bool:
        """All of a question of ours."""
        question.hear(self._incoming)
        if question.ready:
            return False
        self._asked = None
        self.lost = self.lost or (self.inside and question.outside)
        return True

    def _unasked(self, message: bytes) -> None:
        """Last words, or a setting that was changed for all."""
        for driver in list(self._drivers):
            driver.deliver(message)

    def _heard(self, exchange: Exchange, kind: int, message: bytes, said: list[bytes]) -> None:
        if kind == _ERROR:
            failed(self._talk, exchange, message, said, self.recorder)
        elif kind == _READY:
            self._ready(exchange, self._talk.awaited.popleft(), message, said)
        else:
            heard(self._talk, exchange, kind, message, said)

    def _ready(self, exchange: Exchange, awaited: Awaited, message: bytes, said: list[bytes]) -> None:
        if not awaited.last:
            if awaited.held and exchange.later:
                self._talk.put(joined(exchange.later), OURS_LAST)
                self._talk.unnamed_of = None
                exchange.later = []
            return
        self._exchange = None
        if self.recorder is not None:
            self.recorder.answered()
        said += released(exchange)
        driver = exchange.driver
        status = message[5:6]
        self.lost = self.lost or (self.inside and status == b"I")
        if not self.isolated:
            said += [] if awaited.silent else [message]
            return
        if driver.state.explicit:
            driver.state = driver.state._replace(failed=status == b"E")
            if exchange.failed:
                self._talk.mark = Mark.USED
        else:
            driver.state = State()
            if exchange.failed:
                self._talk.mark = Mark.FAILED
            status = b"I"
        said += [] if awaited.silent else [wire.ready(status)]
        if driver not in self._drivers and driver.state.explicit:
            self._talk.mark = Mark.FAILED
