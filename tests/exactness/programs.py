"""Programs of SQL over a few sessions: how they are made up, and how one is run."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import psycopg
from hypothesis import strategies as st
from tests.exactness.schema_statements import ADMINISTRATION, SCHEMA
from tests.exactness.statements import COPIES, PREPARED, READS, REUSING, ROWS, STORAGE, TEMPORARY, TRANSACTION

from dataflow.testing.dsn import Dsn
from dataflow.testing.lease.lease import DatabaseLease

# The last one is a superuser's; the first one rolls back by itself what failed.
SESSIONS = 3
ADMINISTRATOR = SESSIONS - 1
_PATIENT = "-c lock_timeout=40ms -c statement_timeout=10s -c client_min_messages=error"


class Step(NamedTuple):
    """A statement of one session. :param data: what a COPY is given."""

    session: int
    text: str
    data: str | None = None

    def __str__(self) -> str:
        return f"{self.session}: {self.text}" + (f"  <- {self.data[:60]!r}" if self.data else "")


class Program(NamedTuple):
    """:param left_open: sessions that are not closed at the end."""

    steps: tuple[Step, ...]
    left_open: frozenset[int]

    def __str__(self) -> str:
        lines = [f"    {step}" for step in self.steps]
        if self.left_open:
            lines.append(f"    sessions left open: {sorted(self.left_open)}")
        return "\n".join(lines)


class Names(NamedTuple):
    """Of things outside of the database. :param role: of roles. :param gid: of prepared transactions."""

    role: str
    gid: str


_Template = tuple[str, str | None]


def _pool(*groups: tuple[str, ...], copies: bool = True) -> tuple[_Template, ...]:
    return tuple((text, None) for group in groups for text in group) + (COPIES if copies else ())


# Most tests close what they open.
_LEFT_OPEN = (frozenset(), frozenset(), frozenset(), *(frozenset({number}) for number in range(SESSIONS)))
_DAILY = _pool(ROWS, READS, TRANSACTION, TRANSACTION, TRANSACTION)
_STORED = _pool(
    ROWS, TEMPORARY, STORAGE, STORAGE, REUSING, REUSING, TRANSACTION, TRANSACTION, TRANSACTION, PREPARED
)
_ALL = _pool(ROWS, READS, TEMPORARY, STORAGE, REUSING, SCHEMA, ADMINISTRATION, TRANSACTION, TRANSACTION, PREPARED)
_FLAVOURS = (_DAILY, _DAILY, _DAILY, _STORED, _STORED, _ALL)


def programs(names: Names) -> st.SearchStrategy[Program]:
    return st.sampled_from(_FLAVOURS).flatmap(
        lambda pool: st.builds(
            Program,
            st.lists(_steps(pool, names), min_size=1, max_size=14).map(tuple),
            st.sampled_from(_LEFT_OPEN),
        )
    )


def _steps(pool: tuple[_Template, ...], names: Names) -> st.SearchStrategy[Step]:
    def step(template: _Template, session: int, a: int, b: int, c: int) -> Step:
        text, data = template
        values = {"a": a, "b": b, "c": c, "role": names.role, "gid": names.gid}
        if text in ADMINISTRATION:
            session = ADMINISTRATOR
        # What is put into a COPY has no other braces.
        return Step(session, text.format(**values), data.format(**values) if data is not None else None)

    return st.builds(
        step,
        st.sampled_from(pool),
        st.sampled_from((0, 0, 0, 1, 1, ADMINISTRATOR)),
        st.integers(1, 9),
        st.integers(1, 30),
        st.integers(1, 20),
    )


def run(program: Program, lease: DatabaseLease, administrator: Dsn) -> list[psycopg.Connection]:
    """Run it; returns the sessions that are still open.

    After a session that the lease did not open, the database is replaced if it is left open: that is so for the
    administrator's alone.
    """
    sessions: dict[int, psycopg.Connection] = {}
    for step in program.steps:
        session = sessions.get(step.session)
        if session is None or session.closed:
            if step.session == ADMINISTRATOR:
                session = psycopg.connect(administrator.url(), autocommit=True, options=_PATIENT)
            else:
                session = lease.connect_psycopg(autocommit=True, options=_PATIENT)
            sessions[step.session] = session
        _take(step, session)
    for number, session in sessions.items():
        if number not in program.left_open:
            session.close()
    return [session for session in sessions.values() if not session.closed]


def _take(step: Step, session: psycopg.Connection) -> None:
    try:
        if step.data is None:
            for text in step.text.split(";;"):
                session.execute(text.encode())
        else:
            with session.cursor() as cursor, cursor.copy(step.text.encode()) as copy:
                copy.write(step.data)
    except psycopg.Error:
        if step.session == 0:
            with suppress(psycopg.Error):
                session.rollback()
