"""What the server says to a driver, message by message: passed on, held back, or kept from it. No I/O."""

from __future__ import annotations

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.conversation import Awaited, Conversation, Driver, Exchange, released
from dataflow.testing.sandbox.recording import Recorder

_ASYNCHRONOUS = b"NSA"
_COPY_IN = b"GW"
_NOTICE, _READY, _COMPLETE, _PARAMETERS = b"NZCt"


def heard(talk: Conversation, exchange: Exchange, kind: int, message: bytes, said: list[bytes]) -> None:
    """Neither an error, nor that the server is ready. :param said: takes what the driver is told."""
    awaited = talk.awaited[0]
    if kind in _ASYNCHRONOUS:
        if awaited.shown or awaited.warns or kind != _NOTICE:
            said += (*released(exchange), message)
    elif kind in awaited.ends:
        talk.awaited.popleft()
        if awaited.after is not None:
            exchange.driver.state = awaited.after
        if awaited.shown:
            ending = message if awaited.tag is None else wire.complete(awaited.tag.encode())
            (exchange.held if awaited.held else said).append(ending)
    elif awaited.shown:
        _passed_on(talk, exchange, awaited, kind, message, said)


def failed(
    talk: Conversation, exchange: Exchange, message: bytes, said: list[bytes], recorder: Recorder | None
) -> None:
    """An error. What was sent behind it is skipped by the server up to the next Sync."""
    awaited = talk.awaited[0]
    if not exchange.failed:
        if awaited.shown:
            said += released(exchange)
        exchange.held.clear()
        fields = wire.fields(message)
        if recorder is not None:
            recorder.failed(fields.get("C", ""), exchange.parsed, exchange.driver.number)
        message = wire.moved(message, exchange.moves) if exchange.moves else message
        said.append(_by_its_own_names(message, exchange.driver.prefix))
        # With a place it is an error of reading the string: nothing in it was done.
        if awaited.broken is not None and "P" not in fields:
            exchange.driver.state = awaited.broken
    exchange.failed = True
    exchange.copying = False
    _undo(talk, exchange.driver)


def _undo(talk: Conversation, driver: Driver) -> None:
    """What failed, and what is skipped behind it: it was not parsed, and not closed."""
    first = talk.awaited[0].earlier if talk.awaited else None
    skipped = []
    while talk.awaited and _READY not in talk.awaited[0].ends:
        if (earlier := talk.awaited.popleft().earlier) is not None:
            skipped.append(earlier)
    for earlier in reversed(skipped):
        driver.restore(earlier)
    if first is not None and not first.name:  # the server drops the one before, whatever comes of it
        driver.prepared.pop(b"", None)
    if any(not earlier.name for earlier in skipped):
        talk.unnamed_of = None  # it is parsed again when it is needed


def _by_its_own_names(error: bytes, prefix: bytes) -> bytes:
    """As the driver calls what it has prepared."""
    named = b'"' + prefix
    return wire.message(b"E", error[5:].replace(named, b'"')) if prefix and named in error else error


def _passed_on(
    talk: Conversation, exchange: Exchange, awaited: Awaited, kind: int, message: bytes, said: list[bytes]
) -> None:
    if kind in _COPY_IN:
        _copy_in(talk, exchange)
    elif kind == _PARAMETERS and exchange.described:
        prepared = exchange.driver.prepared.get(exchange.described.popleft())
        if prepared is not None:
            prepared.described(message)
    said += released(exchange)
    (exchange.held if awaited.held and kind == _COMPLETE else said).append(message)


def _copy_in(talk: Conversation, exchange: Exchange) -> None:
    """From now on the server takes rows, and overlooks a Sync that came with the statement."""
    exchange.copying = True
    if exchange.begun:
        while len(talk.awaited) > 1:
            del talk.awaited[1]
        exchange.ended = False


def delivered(speaker: Driver | None, said: list[bytes], following: Driver | None) -> Driver | None:
    """What was said up to here goes to its driver; returns the following one."""
    if speaker is not None and said:
        speaker.deliver(b"".join(said))
    said.clear()
    return following
