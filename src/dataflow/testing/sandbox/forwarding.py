"""Forwarding what a driver sends, message by message: as it is, or what is done in place of it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.conversation import (
    BOUND,
    CLOSED,
    DESCRIBED,
    ENDS,
    EXECUTED,
    LAST,
    OUR_CLOSED,
    OURS_LAST,
    Awaited,
    Conversation,
    Driver,
    Exchange,
    Mark,
    awaited,
    joined,
)
from dataflow.testing.sandbox.prepared import Earlier, Prepared
from dataflow.testing.sandbox.recording import Recorder
from dataflow.testing.sandbox.statements import Kind, Script, Statement, read
from dataflow.testing.sandbox.steps import SAVEPOINT, UNDO, Send, Situation, steps

_NAME = 5  # where the first name of a message stands, or what kind of thing it names
_STATEMENT = ord("S")
_FREE = b"CHS"  # no transaction is needed for these: Close, Flush and Sync


def note(recorder: Recorder | None, exchange: Exchange, kind: bytes, message: bytes) -> None:
    """What will be told of it, also if it is dropped behind an error."""
    if kind == b"P":
        (name, text), _ = wire.names(message, 2)
        exchange.parsed = exchange.texts[name] = Prepared(message, read(_text(text)))
    elif kind == b"D" and message[_NAME] == _STATEMENT:
        exchange.described.append(wire.name(message, _NAME + 1))
    elif recorder is not None:
        recorder.sent(kind, message, exchange.text_of, exchange.driver.number)


def pass_on(talk: Conversation, exchange: Exchange, kind: bytes, message: bytes) -> None:
    """One message of an exchange outside of the transaction, as it is."""
    exchange.ended = kind in ENDS
    if exchange.parsed is not None and kind == b"P":
        exchange.driver.prepared[wire.name(message)] = exchange.parsed
    elif kind == b"C" and message[_NAME] == _STATEMENT:
        exchange.driver.prepared.pop(wire.name(message, _NAME + 1), None)
    talk.put(message)


def forward(talk: Conversation, exchange: Exchange, kind: bytes, message: bytes) -> None:
    """One message of an exchange."""
    if kind == b"Q":
        query(talk, exchange, message)
    elif kind == b"S":
        sync(talk, exchange)
    elif not exchange.refused and not exchange.failed:  # the server would skip it as well
        if kind not in _FREE:
            _in_a_transaction(talk, exchange)
        _HANDLERS.get(kind, _other)(talk, exchange, message)


def _in_a_transaction(talk: Conversation, exchange: Exchange) -> None:
    """That of the driver, or one of ours, also behind one that the driver ends in the same exchange."""
    if not exchange.begun:
        exchange.begun = True
        if not exchange.planned.explicit:
            talk.begin()
    elif talk.mark is Mark.NONE and not exchange.planned.explicit:
        talk.inject(talk.before())


def _with_unnamed(talk: Conversation, driver: Driver) -> None:
    """The unnamed statement is that of the driver; a Query, or another driver, may have taken it away since."""
    prepared = driver.prepared.get(b"")
    if prepared is not None and talk.unnamed_of is not driver:
        talk.unnamed_of = driver
        talk.put(prepared.message, Awaited(b"1", shown=False, earlier=Earlier(b"", prepared)))


def query(talk: Conversation, exchange: Exchange, message: bytes) -> None:
    exchange.ended = True
    exchange.driver.prepared.pop(b"", None)  # the server drops it
    script = read(_text(message[5:-1]))
    talk.note(script)
    if not exchange.planned.explicit and not exchange.begun:
        # Apart from the rest, of which nothing is done if it cannot be parsed.
        talk.begin()
    talk.unnamed_of = None
    if script.matters:
        _rewritten(talk, exchange, script)
        return
    behind = talk.behind(exchange.planned)
    talk.put(message, Awaited(b"Z", held=bool(behind), last=not behind))
    if script.copies:
        exchange.later = behind
    elif behind:
        talk.put(joined(behind), OURS_LAST)


def _rewritten(talk: Conversation, exchange: Exchange, script: Script) -> None:
    sends: list[Send] = []
    alone = len(script.statements) == 1
    for place, statement in enumerate(script.statements):
        if not exchange.planned.explicit and talk.mark is Mark.NONE:
            sends += talk.before()
        sends += _steps(talk, exchange, statement, alone=alone, goes_on=False)
        if exchange.refused:  # the server reads the rest all the same
            sends += (Send(rest.text, shown=True, start=rest.start) for rest in script.statements[place + 1 :])
            break
    behind = talk.behind(exchange.planned)
    talk.awaited.extend(map(awaited, sends))
    if behind and talk.awaited[-1].shown:
        talk.awaited[-1] = talk.awaited[-1]._replace(held=True)
    talk.awaited.extend(map(awaited, behind))
    sends += behind
    exchange.moves = tuple(_moves(sends))
    talk.put(joined(sends), LAST)


def _steps(
    talk: Conversation, exchange: Exchange, statement: Statement, *, alone: bool, goes_on: bool
) -> Sequence[Send]:
    driver = exchange.driver
    spared: tuple[str, ...] = ()
    if statement.kind in (Kind.DEALLOCATE, Kind.DISCARD_ALL):
        spared = talk.spared(driver)
    name = (statement.prepared or "").encode()
    if name and driver.prefix and name in driver.prepared:  # in the session it has another one
        statement = statement._replace(text=f'DEALLOCATE "{(driver.prefix + name).decode()}"')
    found = steps(statement, Situation(exchange.planned, alone, talk.checks, spared, goes_on))
    exchange.planned = found.state
    exchange.refused = found.fails
    if found.ends:
        talk.mark = Mark.NONE
    return [send._replace(start=statement.start) if send.sql == statement.text else send for send in found.sends]


def _parse(talk: Conversation, exchange: Exchange, message: bytes) -> None:
    driver, prepared, name = exchange.driver, exchange.parsed, wire.name(message)
    assert prepared is not None, "it was noted"
    talk.note(prepared.script)
    earlier = Earlier(name, driver.prepared.get(name))
    driver.prepared[name] = prepared
    if (statement := prepared.statement) is not None and statement.replaced:
        # It can be parsed where that can be, and is never executed.
        message = wire.parse(name, UNDO if statement.ends else SAVEPOINT)
    if not name:
        prepared.message, talk.unnamed_of = message, driver
    talk.put(wire.renamed(message, _NAME, driver.prefix), Awaited(b"1", earlier=earlier))


def _bind(talk: Conversation, exchange: Exchange, message: bytes) -> None:
    portal = wire.name(message)
    name = wire.name(message, _NAME + len(portal) + 1)
    driver = exchange.driver
    if driver.portals:
        driver.portals.pop(portal, None)
    exchange.bound = True
    if (prepared := driver.prepared.get(name)) is not None:
        exchange.copies = exchange.copies or prepared.script.copies
        if (statement := prepared.statement) is not None:
            driver.portals[portal] = statement.with_parameters(wire.parameters(message))
    if not name:
        _with_unnamed(talk, driver)
    if driver.prefix:
        # Portals keep their names, by which statements call them (MOVE, FETCH); asyncpg never gives one twice.
        message = wire.renamed(message, _NAME + len(portal) + 1, driver.prefix)
    talk.put(message, _with_cursor(exchange, _text(portal)) if portal else BOUND)


def _with_cursor(exchange: Exchange, name: str) -> Awaited:
    """A portal that has a name is a cursor, and ends with the transaction."""
    planned = exchange.planned
    exchange.planned = planned._replace(cursors=(*planned.cursors, name))
    return BOUND._replace(after=exchange.planned)


def _without_cursor(exchange: Exchange, name: str) -> Awaited:
    planned = exchange.planned
    if name not in planned.cursors:
        return CLOSED
    exchange.planned = planned._replace(cursors=tuple(other for other in planned.cursors if other != name))
    return CLOSED._replace(after=exchange.planned)


def _describe(talk: Conversation, exchange: Exchange, message: bytes) -> None:
    if message[_NAME:] == b"S\0":
        _with_unnamed(talk, exchange.driver)
    talk.put(_renamed(exchange, message), DESCRIBED)


def _execute(talk: Conversation, exchange: Exchange, message: bytes) -> None:
    portals = exchange.driver.portals
    portal = wire.name(message) if portals else b""
    statement = portals.get(portal)
    if statement is None:
        exchange.executed = True
        talk.put(message, EXECUTED)
        return
    alone = not exchange.executed
    exchange.executed = not (statement.ends or statement.kind is Kind.DISCARD_ALL)  # what follows is alone again
    for send in _steps(talk, exchange, statement, alone=alone, goes_on=True):
        if send.sql == statement.text and not statement.replaced:
            talk.put(message, awaited(send, b"CsI"))
        else:
            talk.inject([send])
    if statement.replaced:  # it is done, but not by that portal, which cannot be executed again
        del portals[portal]
        talk.put(wire.close(b"P", portal), OUR_CLOSED)


def _close(talk: Conversation, exchange: Exchange, message: bytes) -> None:
    driver = exchange.driver
    name = wire.name(message, _NAME + 1)
    if message[_NAME] == _STATEMENT:
        closed = CLOSED._replace(earlier=Earlier(name, driver.prepared.pop(name, None)))
    else:
        driver.portals.pop(name, None)
        closed = _without_cursor(exchange, _text(name))
    talk.put(_renamed(exchange, message), closed)


def _renamed(exchange: Exchange, message: bytes) -> bytes:
    """What names a statement, or a portal."""
    named = message[_NAME] == _STATEMENT
    return wire.renamed(message, _NAME + 1, exchange.driver.prefix) if named else message


def _flush(talk: Conversation, exchange: Exchange, message: bytes) -> None:
    talk.put(message)


def _other(talk: Conversation, exchange: Exchange, message: bytes) -> None:
    """A function call, which ends by itself, or what we do not know."""
    exchange.ended = True
    talk.put(message, LAST)


def sync(talk: Conversation, exchange: Exchange) -> None:
    exchange.ended = True
    if exchange.begun and not exchange.refused and not exchange.failed and not exchange.copies:
        talk.inject(talk.behind(exchange.planned))
    talk.put(wire.SYNC, LAST)


def _text(said: bytes) -> str:
    return said.decode("utf-8", "surrogateescape")


def _moves(sends: Iterable[Send]) -> Iterator[wire.Move]:
    """Where the driver's statements stand in the string that is sent."""
    position = 0
    for send in sends:
        if send.start is not None:
            yield wire.Move(position, position + len(send.sql), send.start - position)
        position += len(send.sql) + 1


_HANDLERS: dict[bytes, Callable[[Conversation, Exchange, bytes], None]] = {
    b"P": _parse,
    b"B": _bind,
    b"D": _describe,
    b"E": _execute,
    b"C": _close,
    b"H": _flush,
}
