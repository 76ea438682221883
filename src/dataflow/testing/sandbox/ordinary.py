"""An exchange as most of them are, forwarded as a whole: it executes a prepared statement, once. No I/O."""

from __future__ import annotations

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.conversation import BOUND, DESCRIBED, EXECUTED, LAST, Conversation, Driver, Exchange
from dataflow.testing.sandbox.recording import Recorder

_NAME = 5  # where the first name of a message stands
_BIND, _EXECUTE = b"BE"
_DESCRIBE = wire.message(b"D", b"P\0")
# By the number of messages: Bind, Execute and Sync; and with Describe, as libpq says it.
_ANSWERS = {3: (BOUND, EXECUTED, LAST), 4: (BOUND, DESCRIBED, EXECUTED, LAST)}


def ordinary(talk: Conversation, driver: Driver, recorder: Recorder | None) -> Exchange | None:
    """What the driver has sent, if it is such a one and concerns no transaction. None: nothing was forwarded."""
    messages = driver.messages
    bind, answers = messages[0], _ANSWERS.get(len(messages))
    if bind[0] != _BIND or answers is None or not _is_executed_once(driver):
        return None
    name = wire.name(bind, _NAME + 1)
    prepared = driver.prepared.get(name) if name else None
    if prepared is None or prepared.statement is not None or prepared.script.copies or talk.behind(driver.state):
        return None
    if not driver.state.explicit:
        talk.begin()
    if recorder is not None:
        recorder.executed(prepared, bind, driver.number)
    messages[0] = wire.renamed(bind, _NAME + 1, driver.prefix)
    talk.out += messages
    talk.awaited += answers
    messages.clear()
    driver.portals.pop(b"", None)
    return Exchange(driver, driver.state, ended=True)


def _is_executed_once(driver: Driver) -> bool:
    """By way of the unnamed portal, and the exchange ends there."""
    bind, *described, execute, sync = driver.messages
    by_unnamed = not bind[_NAME] and execute[0] == _EXECUTE and not execute[_NAME]
    return by_unnamed and sync == wire.SYNC and described in ([], [_DESCRIBE])
