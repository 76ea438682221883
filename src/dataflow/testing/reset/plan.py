"""Deciding how a database is put back, from what was written and what the template looks like. Pure.

First about the catalogs, then about tables, since the names of these hold only while the schema is the same:
`catalog_questions` and `table_questions` say what the log alone cannot tell, `schema_change` and `decide` go by
the answers. When in doubt the plan is to replace the database by a fresh clone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from dataflow.testing.reset.footprint import Footprint, Tid, Touched
from dataflow.testing.reset.shape import Relation, SequenceState, Shape

# More rows than this are not deleted by their places.
MOST_ROWS = 5_000
_TABLE, _SEQUENCE, _INDEX, _TOAST, _VIEW = "r", "S", "i", "t", "m"
# Catalogs with a row for each schema of temporary tables; those stay when the session is over.
_NAMESPACES = "pg_namespace"
_CLASSES = "pg_class"


class Question(NamedTuple):
    """Which of these places of a relation hold a row that is there now.

    :param in_place: places of rows that were changed where they stand.
    """

    relation: Relation
    came: frozenset[Tid]
    gone: frozenset[Tid]
    in_place: frozenset[Tid] = frozenset()


class Answer(NamedTuple):
    """:param came: of the asked places, those with a row. :param gone: likewise."""

    came: frozenset[Tid]
    gone: frozenset[Tid]


class Entry(NamedTuple):
    """A row of `pg_class` as it is now. :param came: it was put there meanwhile, in place of an older one."""

    came: bool
    oid: int
    filenode: int
    schema_hash: int


class Verdicts(NamedTuple):
    """The answers of the database.

    :param answers: by oid of the relation. :param entries: the rows of `pg_class` that came or were changed in
        place. :param temporary: how many of the new rows of `pg_namespace` are schemas of temporary tables.
    :param catalogs_moved: a catalog has another file than in the template.
    """

    answers: Mapping[int, Answer] = {}
    entries: tuple[Entry, ...] = ()
    temporary: int = 0
    catalogs_moved: bool = False


class DeleteRows(NamedTuple):
    """Delete the rows at these places, if they are there."""

    relation: Relation
    places: tuple[Tid, ...]

    def __str__(self) -> str:
        return f"delete the rows at {len(self.places)} places of {self.relation.name}"


class RestoreTable(NamedTuple):
    """Delete all rows, and put those of the template back."""

    relation: Relation
    reason: str

    def __str__(self) -> str:
        size = f"{self.relation.main_bytes // 1024} kB" if self.relation.main_bytes else "no rows"
        return f"put all rows of {self.relation.name} back ({size}): {self.reason}"


class SetSequence(NamedTuple):
    """Set a sequence back. :param oid: of the sequence."""

    oid: int
    state: SequenceState

    def __str__(self) -> str:
        return f"set {self.state.name} back to {self.state.last_value}"


Step = DeleteRows | RestoreTable | SetSequence


class Plan(NamedTuple):
    """:param steps: what to do, in this order. :param moved: files that relations have now, by oid.
    :param replace: why the database cannot be put back and a fresh clone has to take its place, or None.
    """

    steps: tuple[Step, ...] = ()
    moved: Mapping[int, int] = {}
    replace: str | None = None

    @property
    def nothing(self) -> bool:
        return not self.steps and not self.moved and self.replace is None

    def __str__(self) -> str:
        if self.replace is not None:
            return f"take a fresh copy: {self.replace}"
        return "; ".join(map(str, self.steps)) or "nothing to do"


def catalog_questions(footprint: Footprint, shape: Shape) -> tuple[Question, ...]:
    """What tells whether the schema is that of the template."""
    return tuple(
        Question(relation, frozenset(touched.came), frozenset(touched.gone), frozenset(touched.in_place))
        for relation, touched in _known(footprint, shape)
        if relation.catalog and (touched.came or touched.gone or touched.in_place)
    )


def table_questions(footprint: Footprint, shape: Shape, catalogs: Verdicts) -> tuple[Question, ...]:
    """What tells whether rows of the template are gone. Rows that came are deleted unseen."""
    moved = _moved(shape, catalogs)
    questions = []
    for relation, touched in _known(footprint, shape):
        known = not (touched.overwritten or touched.unplaced or touched.strange)
        if relation.catalog or relation.oid in moved or not known:
            continue
        came = frozenset(touched.came if relation.kind == _VIEW else ())
        if relation.kind in (_TABLE, _VIEW) and (touched.gone or came):
            questions.append(Question(relation, came, frozenset(touched.gone)))
    return tuple(questions)


def doubtful_catalogs(footprint: Footprint, shape: Shape) -> bool:
    """Whether a catalog may have another file than in the template: then the places in the log mean nothing."""
    return any(
        filenode not in shape.files or shape.files[filenode].name == _CLASSES for filenode in footprint.local
    )


def decide(footprint: Footprint, shape: Shape, catalogs: Verdicts, tables: Verdicts) -> Plan:
    """The plan for what was written to the database itself."""
    reason = schema_change(footprint, shape, catalogs)
    if reason is not None:
        return Plan(replace=reason)
    moved = _moved(shape, catalogs)
    steps: dict[int, Step] = {}
    for relation, step in _steps(footprint, shape, moved, tables):
        if isinstance(step, str):
            return Plan(replace=step)
        if step is not None:
            steps[relation.oid] = step
    return Plan(tuple(steps.values()), moved)


def _moved(shape: Shape, catalogs: Verdicts) -> dict[int, int]:
    """Relations that have another file now, where nothing else changed: by oid, the number of the file."""
    return {
        entry.oid: entry.filenode
        for entry in catalogs.entries
        if entry.oid in shape.relations and shape.relations[entry.oid].filenode != entry.filenode
    }


def _steps(
    footprint: Footprint, shape: Shape, moved: Mapping[int, int], tables: Verdicts
) -> Iterator[tuple[Relation, Step | str | None]]:
    for relation, touched in _known(footprint, shape):
        if not relation.catalog and touched.changed and relation.oid not in moved:
            yield relation, _step(relation, touched, shape, tables)
    for oid in moved:
        yield shape.relations[oid], _whole(shape.relations[oid], "its file was replaced", shape)
    for relation in shape.unlogged:
        if relation.oid not in moved:
            yield relation, _whole(relation, "it is unlogged", shape)


def _known(footprint: Footprint, shape: Shape) -> Iterable[tuple[Relation, Touched]]:
    for filenode, touched in footprint.local.items():
        relation = shape.files.get(filenode)
        if relation is not None:
            yield relation, touched


def schema_change(footprint: Footprint, shape: Shape, verdicts: Verdicts) -> str | None:
    """What tells that the catalogs are not those of the template, but for files that were rewritten."""
    if verdicts.catalogs_moved:
        return "a catalog was rewritten"
    if shape.exotic is not None:
        return f"{shape.exotic} is kept in a way that the log does not tell"
    for relation, touched in _known(footprint, shape):
        if not relation.catalog or relation.kind == _INDEX:
            continue
        if touched.strange or touched.unplaced:
            return _strange(relation, touched)
        answer = verdicts.answers.get(relation.oid)
        if answer is None:
            continue
        if relation.name == _CLASSES:
            same = _only_files_changed(touched, answer, shape, verdicts)
        else:
            allowed = verdicts.temporary if relation.name == _NAMESPACES else 0
            same = not _lost(touched, answer) and len(answer.came) <= allowed and not touched.in_place
        if not same:
            return f"the schema changed ({relation.name})"
    return None


def _lost(touched: Touched, answer: Answer | None) -> bool:
    """Rows of the template are gone."""
    return touched.overwritten or (answer is not None and len(answer.gone) < len(touched.gone))


def _strange(relation: Relation, touched: Touched) -> str:
    kinds = sorted(touched.strange) or ["rows without a place" if touched.unplaced else "a change in place"]
    return f"{relation.name} has log records that are not known: {', '.join(kinds)}"


def _only_files_changed(touched: Touched, answer: Answer, shape: Shape, verdicts: Verdicts) -> bool:
    """Whether the rows of `pg_class` are those of the template, but for the files that they name."""
    lost = len(touched.gone) - len(answer.gone)
    came = sum(entry.came for entry in verdicts.entries)
    if touched.overwritten or lost != came or len(answer.came) != came:
        return False
    for entry in verdicts.entries:
        relation = shape.relations.get(entry.oid)
        if relation is None or relation.schema_hash != entry.schema_hash or (entry.came and relation.catalog):
            return False
    return True


def _step(relation: Relation, touched: Touched, shape: Shape, verdicts: Verdicts) -> Step | str | None:
    if relation.kind == _INDEX:  # it changes with its table
        return None
    if touched.strange or touched.in_place:
        return _strange(relation, touched)
    if relation.kind == _TOAST:  # likewise
        return None
    if relation.kind == _SEQUENCE:
        return _whole(relation, "", shape)
    answer = verdicts.answers.get(relation.oid)
    lost = _lost(touched, answer)
    if relation.kind != _TABLE:
        changed = lost or answer is None or answer.came
        return f"{relation.name}, which is no table, changed" if changed else None
    if relation.reacts and (lost or touched.came or touched.unplaced):
        return f"{relation.name} has triggers or rules that always fire"
    if lost:
        return _whole(relation, "rows of the template were changed", shape)
    if touched.unplaced:
        return _whole(relation, "rows came at places that the log does not tell", shape)
    if len(touched.came) > MOST_ROWS:
        return _whole(relation, f"more than {MOST_ROWS} rows came", shape)
    return DeleteRows(relation, tuple(sorted(touched.came))) if touched.came else None


def _whole(relation: Relation, why: str, shape: Shape) -> Step | str | None:
    """All of a relation as in the template; a text says why it cannot be done in place."""
    if relation.kind == _SEQUENCE:
        return SetSequence(relation.oid, shape.sequences[relation.oid])
    if relation.kind in (_INDEX, _TOAST):
        return None
    if relation.kind != _TABLE:
        return f"{relation.name}, which is no table, was rewritten"
    if relation.reacts:
        return f"{relation.name} has triggers or rules that always fire"
    if relation.computes:
        return f"{relation.name} has columns or indexes that functions of the schema compute"
    if not relation.small:
        return f"{relation.name} is large ({relation.size_bytes >> 10} kB): {why}"
    return RestoreTable(relation, why)
