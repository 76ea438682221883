"""What is sent in place of a statement, and what its driver is told. Pure.

All savepoints of ours have one name. It is set before the first statement of each transaction as the driver sees
it, also of one that is a single statement by itself. What was done since is kept by releasing it, and undone by
going back to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dataflow.testing.sandbox.commit import CHECK, close, literal, restore, save
from dataflow.testing.sandbox.discard import deallocate_all, discard_all
from dataflow.testing.sandbox.statements import Kind, Statement

SAVEPOINT = "SAVEPOINT dataflow_tdd"
RELEASE = "RELEASE SAVEPOINT dataflow_tdd"
UNDO = "ROLLBACK TO SAVEPOINT dataflow_tdd"
# Set before a transaction only reads from then on; its release is the one way to write again and lose nothing.
_READS = "dataflow_tdd_reads"
_AROUND = ("dataflow_tdd", "sp_")  # so begin the names of savepoints around the transactions of drivers
DEFERRED = "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE condeferred)"
# They end with the savepoint, and cannot be set as late as that.
_OF_THE_END = ("transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed")
# Does nothing, and has the tag of SET.
_NO_SETTING = "SET LOCAL dataflow_tdd.nothing = ''"


class Savepoint(NamedTuple):
    """:param saved: what the state had of it then."""

    name: str
    saved: tuple[str, ...] = ()


class State(NamedTuple):
    """A session as its driver sees it.

    :param explicit: a transaction was begun.
    :param failed: and refuses all but its end.
    :param saved: settings that go back to what they were when it ends. :param cursors: that are closed then.
    :param savepoints: those that are set in it, by the driver and, since when it only reads, by us.
    :param inherits: that it only reads, by AND CHAIN.
    """

    explicit: bool = False
    failed: bool = False
    saved: tuple[str, ...] = ()
    cursors: tuple[str, ...] = ()
    savepoints: tuple[Savepoint, ...] = ()
    inherits: bool = False

    @property
    def read_only(self) -> bool:
        return any(savepoint.name == _READS for savepoint in self.savepoints)

    def reading(self) -> State:
        """From now on it only reads."""
        return self._replace(savepoints=(*self.savepoints, Savepoint(_READS, self.saved)))


class Send(NamedTuple):
    """One statement for the server.

    :param shown: its results go to the driver; of what is hidden only errors do. :param tag: in place of its own.
    :param warns: its notices go to the driver.
    :param after: the state of the session when it was done. :param broken: and when it failed, if not as
        before. :param start: where it stands in the driver's string, if it is from there.
    """

    sql: str
    shown: bool = False
    tag: str | None = None
    warns: bool = False
    after: State | None = None
    broken: State | None = None
    start: int | None = None


class Steps(NamedTuple):
    """:param sends: in this order, unless one fails. :param state: after all of them.
    :param ends: the savepoint is not set after them. :param fails: the last of them fails for certain.
    """

    sends: tuple[Send, ...]
    state: State
    ends: bool = False
    fails: bool = False


class Situation(NamedTuple):
    """:param alone: no other statement belongs to its string. :param checks: constraints may be deferred.
    :param spared: names of statements that other drivers of the session have prepared.
    :param goes_on: others may follow before its transaction ends, though it is alone.
    """

    state: State
    alone: bool
    checks: bool
    spared: tuple[str, ...] = ()
    goes_on: bool = False


def steps(statement: Statement, now: Situation) -> Steps:
    """What is done in place of a statement."""
    make = _MAKERS.get(statement.kind, _plain)
    return make(statement, now)


def _plain(statement: Statement, now: Situation) -> Steps:
    new = tuple(name for name in statement.settings if name not in now.state.saved and name not in _OF_THE_END)
    saved = tuple(name for name in (*now.state.saved, *new) if statement.sets not in (name, "all"))
    state = now.state._replace(saved=saved)
    before = tuple(Send(save(name)) for name in new)
    return Steps((*before, Send(statement.text, shown=True, after=state)), state)


def _begin(statement: Statement, now: Situation) -> Steps:
    tag = "START TRANSACTION" if statement.words[0] == "start" else "BEGIN"
    if now.state.explicit:
        return _begun_already(statement, now, tag)
    state = now.state._replace(explicit=True)
    if statement.read_only:
        return _reading(state, tag)
    return Steps((Send(_NO_SETTING, shown=True, tag=tag, after=state),), state)


def _begun_already(statement: Statement, now: Situation, tag: str) -> Steps:
    """The server warns, and has the transaction that there is only read, if that was asked for."""
    if not statement.read_only or now.state.read_only:
        return Steps((Send(tag, shown=True),), now.state)
    state = now.state.reading()
    reads = Send(f"{tag} READ ONLY", shown=True, after=state)
    return Steps((Send(f"SAVEPOINT {_READS}"), reads), state)


def _reading(state: State, tag: str = "SET") -> Steps:
    """From now on it only reads."""
    if not state.read_only:
        state = state.reading()
    reads = Send("SET TRANSACTION READ ONLY", shown=True, tag=tag, after=state)
    return Steps((Send(f"SAVEPOINT {_READS}"), reads), state)


def _commit(statement: Statement, now: Situation) -> Steps:
    state = now.state
    if not state.explicit:
        return _end_of_nothing(statement, now, "COMMIT")
    if state.failed:
        return _rollback(statement, now)
    over = State()
    sends = [Send(sql, broken=over) for sql in end_of_transaction(now)]
    sends.append(Send(RELEASE, shown=True, tag="COMMIT", after=over, broken=over))
    if statement.chain:
        return _chained(sends, state)
    return Steps(tuple(sends), over, ends=True)


def _rollback(statement: Statement, now: Situation) -> Steps:
    if not now.state.explicit:
        return _end_of_nothing(statement, now, "ROLLBACK")
    sends = [Send(UNDO), Send(RELEASE, shown=True, tag="ROLLBACK", after=State())]
    if statement.chain:
        return _chained(sends, now.state)
    return Steps(tuple(sends), State(), ends=True)


def _chained(sends: list[Send], state: State) -> Steps:
    """The next transaction begins at once, and is like this one."""
    begun = State(explicit=True)
    sends[-1] = sends[-1]._replace(after=begun)
    sends.append(Send(SAVEPOINT))
    # Where it failed outside of a savepoint, the server forgets that it only read, unless that was inherited.
    if state.read_only and (not state.failed or state.inherits or len(state.savepoints) > 1):
        reading = _reading(begun._replace(inherits=True))
        sends += (send._replace(shown=False) for send in reading.sends)
        begun = reading.state
    return Steps(tuple(sends), begun)


def _end_of_nothing(statement: Statement, now: Situation, tag: str) -> Steps:
    if statement.chain:
        return _refused(now, f"{tag} AND CHAIN can only be used in transaction blocks")
    state = State()
    warning = _said("WARNING", "25P01", "there is no transaction in progress")
    if now.alone:
        closes = [Send(close(now.state.cursors))] if now.state.cursors else []
        return Steps((warning, *closes, Send(_NO_SETTING, shown=True, tag=tag, after=state)), state)
    # It ends what the string did so far.
    earlier = [Send(UNDO)] if tag == "ROLLBACK" else [Send(sql) for sql in end_of_transaction(now)]
    shown = Send(RELEASE, shown=True, tag=tag, after=state)
    return Steps((warning, *earlier, shown), state, ends=True)


def end_of_transaction(now: Situation) -> list[str]:
    """What a commit does besides keeping what was written."""
    done = [CHECK] if now.checks else []
    if now.state.read_only:
        done.append(f"RELEASE SAVEPOINT {_READS}")
    if now.state.cursors:
        done.append(close(now.state.cursors))
    done += [restore(name) for name in now.state.saved]
    return done


def _savepoint(statement: Statement, now: Situation) -> Steps:
    if not now.state.explicit:
        return _refused(now, f"{statement.called} can only be used in transaction blocks")
    known, name = now.state.savepoints, statement.savepoint or ""
    place = max((at for at, savepoint in enumerate(known) if savepoint.name == name), default=None)
    state = now.state
    if statement.words[0] == "savepoint":
        state = state._replace(savepoints=(*known, Savepoint(name, state.saved)))
    elif place is None:
        return _no_savepoint(statement, now)  # those around the transaction are not the driver's
    elif statement.words[0] == "release":
        state = state._replace(savepoints=known[:place])
    else:
        state = state._replace(savepoints=known[: place + 1], saved=known[place].saved)
    return Steps((Send(statement.text, shown=True, after=state),), state)


def _no_savepoint(statement: Statement, now: Situation) -> Steps:
    if now.state.failed and statement.words[0] == "release":
        return Steps((Send(statement.text, shown=True),), now.state)  # nothing but a way back is read now
    if now.state.failed:
        # Nothing but a way back is read now, and one that leads nowhere says so.
        name = statement.savepoint or ""
        nowhere = _identifier(f"{name} ") if name.startswith(_AROUND) else _identifier(name)
        return Steps((Send(f"ROLLBACK TO SAVEPOINT {nowhere}"),), now.state, fails=True)
    return _refused(now, f'savepoint "{statement.savepoint}" does not exist', "3B001")


def _two_phase(statement: Statement, now: Situation) -> Steps:
    refusal = _said(
        "EXCEPTION",
        "0A000",
        "PREPARE TRANSACTION cannot be undone, and so is refused in a test that is rolled back",
        'mark the test tdd(isolation="database")',
    )
    return Steps((refusal,), now.state, fails=True)


def _local(statement: Statement, now: Situation) -> Steps:
    return _of_a_transaction(statement, now, _plain)


def _transaction(statement: Statement, now: Situation) -> Steps:
    return _of_a_transaction(statement, now, _inside)


def _inside(statement: Statement, now: Situation) -> Steps:
    if statement.read_only:
        return _reading(now.state)
    if statement.read_write and now.state.savepoints[-1:] and now.state.savepoints[-1].name == _READS:
        state = now.state._replace(savepoints=now.state.savepoints[:-1])
        return Steps((Send(f"RELEASE SAVEPOINT {_READS}", shown=True, tag="SET", after=state),), state)
    # Its level is that of the test's transaction.
    return Steps((Send(_NO_SETTING, shown=True),), now.state)


def _of_a_transaction(
    statement: Statement, now: Situation, inside: Callable[[Statement, Situation], Steps]
) -> Steps:
    """Outside of one it is a warning; and has an effect, where others may follow."""
    if not now.alone or now.state.explicit:
        return inside(statement, now)
    warning = _said("WARNING", "25P01", f"{statement.called} can only be used in transaction blocks")
    if now.goes_on:
        found = inside(statement, now)
        return found._replace(sends=(warning, *found.sends))
    send = Send(statement.text, shown=True)
    return Steps((warning, Send(SAVEPOINT), send, Send(UNDO), Send(RELEASE)), now.state)


def _declare(statement: Statement, now: Situation) -> Steps:
    if now.alone and not now.state.explicit:
        return _refused(now, "DECLARE CURSOR can only be used in transaction blocks")
    assert statement.cursor is not None
    state = now.state._replace(cursors=(*now.state.cursors, statement.cursor))
    return Steps((Send(statement.text, shown=True, after=state),), state)


def _lock(statement: Statement, now: Situation) -> Steps:
    if now.alone and not now.state.explicit:
        return _refused(now, "LOCK TABLE can only be used in transaction blocks")
    return Steps((Send(statement.text, shown=True),), now.state)


def _deallocate(statement: Statement, now: Situation) -> Steps:
    if statement.prepared is not None or not now.spared:
        return Steps((Send(statement.text, shown=True),), now.state)
    return Steps((Send(deallocate_all(now.spared), shown=True, tag="DEALLOCATE ALL"),), now.state)


def _discard_all(statement: Statement, now: Situation) -> Steps:
    if now.state.explicit or not now.alone:
        return Steps((Send(statement.text, shown=True),), now.state)  # the server refuses it
    *hidden, last = discard_all(now.spared)
    sends = (*(Send(sql) for sql in hidden), Send(last, shown=True, tag="DISCARD ALL"))
    return Steps(sends, now.state)


def _refused(now: Situation, text: str, sqlstate: str = "25P01") -> Steps:
    return Steps((_said("EXCEPTION", sqlstate, text),), now.state, fails=True)


def _said(level: str, sqlstate: str, text: str, hint: str = "") -> Send:
    """Have the server say it, so that it knows itself what follows from it."""
    given = {"ERRCODE": sqlstate, "MESSAGE": text} | ({"HINT": hint} if hint else {})
    using = ", ".join(f"{name} = {literal(value)}" for name, value in given.items())
    return Send(f"DO $dataflow_tdd$ BEGIN RAISE {level} USING {using}; END $dataflow_tdd$", warns=True)


def _identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


_MAKERS = {
    Kind.BEGIN: _begin,
    Kind.COMMIT: _commit,
    Kind.ROLLBACK: _rollback,
    Kind.SAVEPOINT: _savepoint,
    Kind.TWO_PHASE: _two_phase,
    Kind.SET_LOCAL: _local,
    Kind.SET_TRANSACTION: _transaction,
    Kind.SET_CONSTRAINTS: _local,
    Kind.DECLARE: _declare,
    Kind.LOCK: _lock,
    Kind.DISCARD_ALL: _discard_all,
    Kind.DEALLOCATE: _deallocate,
}
