"""Asking the database what the log cannot tell: which rows are there now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dataflow.testing.reset.footprint import Tid
from dataflow.testing.reset.plan import Answer, Entry, Question, Verdicts
from dataflow.testing.reset.shape import SCHEMA_HASH, Shape

if TYPE_CHECKING:
    import psycopg

_NAMESPACE = "pg_namespace"
_CLASS = "pg_class"
# Names are the server's own, quoted by it; places are numbers.
_ALIVE = (
    "SELECT {oid}::bigint, {side}, array_agg(ctid::text) FROM ONLY {name} WHERE ctid = ANY ('{places}'::tid[])"
)
_TEMPORARY = (
    "SELECT count(*) FROM pg_namespace"
    " WHERE ctid = ANY ('{places}'::tid[]) AND nspname ~ '^pg_(toast_)?temp_\\d+$'"
)
_ENTRIES = (
    f"SELECT c.ctid = ANY ('{{came}}'::tid[]), c.oid::bigint, pg_relation_filenode(c.oid)::bigint, {SCHEMA_HASH}"
    " FROM pg_class c WHERE c.ctid = ANY ('{places}'::tid[]) ORDER BY c.oid"
)
_MAPPED = (
    "SELECT oid::bigint, pg_relation_filenode(oid)::bigint FROM pg_class"
    " WHERE relfilenode = 0 AND NOT relisshared AND pg_relation_filenode(oid) IS NOT NULL"
)


def ask(connection: psycopg.Connection, questions: tuple[Question, ...]) -> Verdicts:
    """The verdicts, over a connection to the database itself."""
    answers = _alive(connection, questions)
    entries: tuple[Entry, ...] = ()
    temporary = 0
    for question in questions:
        came = answers[question.relation.oid].came
        if question.relation.name == _CLASS and (came or question.in_place):
            query = _ENTRIES.replace("{came}", places_text(came))
            query = query.replace("{places}", places_text(came | question.in_place))
            entries = tuple(Entry(*row) for row in connection.execute(query.encode()).fetchall())
        if came and question.relation.name == _NAMESPACE:
            row = connection.execute(_TEMPORARY.format(places=places_text(came)).encode()).fetchone()
            temporary = int(row[0]) if row else 0
    return Verdicts(answers, entries, temporary)


def catalogs_moved(connection: psycopg.Connection, shape: Shape) -> bool:
    """Whether a catalog has another file than in the template."""
    now = {int(oid): int(filenode) for oid, filenode in connection.execute(_MAPPED).fetchall()}
    then = {r.oid: r.filenode for r in shape.relations.values() if r.mapped and not r.shared}
    return now != then


def _alive(connection: psycopg.Connection, questions: tuple[Question, ...]) -> dict[int, Answer]:
    parts = []
    for relation, came, gone, _ in questions:
        for side, places in (("true", came), ("false", gone)):
            if places:
                parts.append(
                    _ALIVE.format(oid=relation.oid, side=side, name=relation.name, places=places_text(places))
                )
    found: dict[tuple[int, bool], frozenset[Tid]] = {}
    if parts:
        for oid, side, places in connection.execute(" UNION ALL ".join(parts).encode()).fetchall():
            found[oid, side] = frozenset(map(_place, places or ()))
    nothing: frozenset[Tid] = frozenset()
    return {
        question.relation.oid: Answer(
            found.get((question.relation.oid, True), nothing), found.get((question.relation.oid, False), nothing)
        )
        for question in questions
    }


def places_text(places: Iterable[Tid]) -> str:
    """Places as an array of PostgreSQL's type tid."""
    return "{" + ",".join(f'"({block},{offset})"' for block, offset in places) + "}"


def _place(text: str) -> Tid:
    block, offset = text[1:-1].split(",")
    return int(block), int(offset)
