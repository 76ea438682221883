"""From what was written, what the template looks like and what the database answers to a plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from dataflow.testing.reset.footprint import Footprint, Tid, Touched
from dataflow.testing.reset.plan import (
    MOST_ROWS,
    Answer,
    DeleteRows,
    Entry,
    Plan,
    Question,
    RestoreTable,
    SetSequence,
    Verdicts,
    catalog_questions,
    decide,
    doubtful_catalogs,
    table_questions,
)
from dataflow.testing.reset.shape import SMALL_BYTES, Relation, SequenceState, Shape, from_relations


def relation(oid: int, name: str, **given: Any) -> Relation:
    """An ordinary table of users, of 8 kB, but for what is given."""
    fields: dict[str, Any] = {
        "oid": oid,
        "filenode": oid,
        "name": name,
        "kind": "r",
        "persistence": "p",
        "shared": False,
        "mapped": False,
        "has_toast": True,
        "size_bytes": 8192,
        "main_bytes": 8192,
        "schema_hash": oid * 7,
        "catalog": False,
        "reacts": False,
    }
    return Relation(**fields | given)


CLASSES = relation(1259, "pg_class", catalog=True, mapped=True)
NAMESPACES = relation(2615, "pg_namespace", catalog=True)
TYPES = relation(1247, "pg_type", catalog=True, mapped=True)
SMALL = relation(20001, "public.small")
LARGE = relation(20002, "public.large", size_bytes=SMALL_BYTES + 1)
REACTING = relation(20003, "public.reacting", reacts=True)
COMPUTING = relation(20009, "public.computing", computes=True)
UNLOGGED = relation(20004, "public.unlogged", persistence="u")
SEQUENCE = relation(20005, "public.s", kind="S")
INDEX = relation(20006, "public.i", kind="i")
TOAST = relation(20007, "pg_toast.t", kind="t")
VIEW = relation(20008, "public.m", kind="m")
STATE = SequenceState("public.s", 5, True)
NOTHING = Answer(frozenset(), frozenset())


def shape(*relations: Relation) -> Shape:
    return from_relations((CLASSES, NAMESPACES, TYPES, *relations), {SEQUENCE.oid: STATE})


def footprint(**touched: Touched) -> Footprint:
    """By name of the relation, in lower case."""
    by_name = {name.lower(): value for name, value in globals().items() if isinstance(value, Relation)}
    return Footprint({by_name[name].filenode: what for name, what in touched.items()})


UNASKED = Verdicts()
ALL = shape(SMALL, LARGE, REACTING, COMPUTING, SEQUENCE, INDEX, TOAST, VIEW)


def plan(written: Footprint, tables: Verdicts = UNASKED, catalogs: Verdicts = UNASKED) -> Plan:
    return decide(written, ALL, catalogs, tables)


def answered(relation: Relation, *, came: Iterable[Tid] = (), gone: Iterable[Tid] = ()) -> Verdicts:
    return Verdicts({relation.oid: Answer(frozenset(came), frozenset(gone))})


CAME = Touched(came={(0, 1), (0, 2)})
GONE = Touched(gone={(0, 1)})


@pytest.mark.parametrize(
    "written", [footprint(), footprint(small=Touched()), footprint(index=CAME), footprint(toast=CAME)]
)
def test_where_no_row_came_or_went_there_is_nothing_to_do(written: Footprint) -> None:
    assert plan(written).nothing


def test_rows_that_came_are_deleted_in_their_order() -> None:
    assert plan(footprint(small=CAME)).steps == (DeleteRows(SMALL, ((0, 1), (0, 2))),)
    assert plan(footprint(large=CAME)).steps == (DeleteRows(LARGE, ((0, 1), (0, 2))),)


def test_more_rows_than_can_be_named_are_put_back_as_a_whole_or_not_in_place() -> None:
    many = Touched(came={(0, offset) for offset in range(MOST_ROWS + 1)})
    (step,) = plan(footprint(small=many)).steps
    assert isinstance(step, RestoreTable)
    assert "public.large is large" in str(plan(footprint(large=many)).replace)


def test_rows_of_the_template_that_are_still_there_need_nothing() -> None:
    assert plan(footprint(small=GONE), answered(SMALL, gone={(0, 1)})).nothing


def test_rows_of_the_template_that_are_gone_bring_a_small_table_back_and_replace_a_large_one() -> None:
    (step,) = plan(footprint(small=GONE), answered(SMALL)).steps
    assert step == RestoreTable(SMALL, "rows of the template were changed")
    assert "public.large is large (256 kB)" in str(plan(footprint(large=GONE), answered(LARGE)).replace)


def test_rows_that_would_be_computed_anew_are_not_put_back_one_by_one() -> None:
    assert plan(footprint(computing=CAME)).steps == (DeleteRows(COMPUTING, ((0, 1), (0, 2))),)
    assert "functions of the schema compute" in str(plan(footprint(computing=GONE), answered(COMPUTING)).replace)


def test_a_place_that_was_used_again_counts_as_gone_without_an_answer() -> None:
    written = footprint(small=Touched(came={(0, 1)}, gone={(0, 1)}, overwritten=True))
    assert table_questions(written, ALL, Verdicts()) == ()
    assert isinstance(plan(written).steps[0], RestoreTable)


def test_rows_at_places_that_are_not_told_bring_a_small_table_back_and_replace_anything_else() -> None:
    """A server with full_page_writes, after each checkpoint; and copies of databases make checkpoints."""
    unplaced = Touched(unplaced=True)
    (step,) = plan(footprint(small=unplaced)).steps
    assert step == RestoreTable(SMALL, "rows came at places that the log does not tell")
    assert table_questions(footprint(small=Touched(gone={(0, 1)}, unplaced=True)), ALL, Verdicts()) == ()
    assert "public.large is large" in str(plan(footprint(large=unplaced)).replace)
    assert "always fire" in str(plan(footprint(reacting=unplaced)).replace)
    assert "public.m, which is no table" in str(plan(footprint(view=unplaced)).replace)
    assert "pg_type has log records" in str(plan(footprint(types=unplaced)).replace)


@pytest.mark.parametrize("name", ["small", "toast", "view", "types", "sequence"])
def test_records_that_are_not_known_replace(name: str) -> None:
    written = footprint(**{name: Touched(strange={"Heap/NEW"})})
    assert "log records that are not known: Heap/NEW" in str(plan(written).replace)


def test_a_change_in_place_outside_of_pg_class_replaces() -> None:
    assert "a change in place" in str(plan(footprint(small=Touched(in_place={(0, 1)}))).replace)
    verdicts = answered(TYPES)
    assert "pg_type" in str(plan(footprint(types=Touched(in_place={(0, 1)})), catalogs=verdicts).replace)


def test_triggers_that_always_fire_replace_where_rows_would_be_touched() -> None:
    assert "always fire" in str(plan(footprint(reacting=CAME)).replace)
    assert "always fire" in str(plan(footprint(reacting=GONE), answered(REACTING)).replace)
    assert plan(footprint(reacting=GONE), answered(REACTING, gone={(0, 1)})).nothing


def test_a_sequence_is_set_back() -> None:
    assert plan(footprint(sequence=Touched(counted=True))).steps == (SetSequence(SEQUENCE.oid, STATE),)


def test_unlogged_tables_are_always_put_back() -> None:
    with_unlogged = shape(UNLOGGED)
    made = decide(footprint(), with_unlogged, Verdicts(), Verdicts())
    assert made.steps == (RestoreTable(UNLOGGED, "it is unlogged"),)


def test_a_materialised_view_that_changed_replaces() -> None:
    (question,) = table_questions(footprint(view=CAME), ALL, Verdicts())
    assert question == Question(VIEW, frozenset(CAME.came), frozenset())
    assert "public.m, which is no table, changed" in str(plan(footprint(view=CAME)).replace)
    assert "no table" in str(plan(footprint(view=CAME), answered(VIEW, came={(0, 1)})).replace)
    assert plan(footprint(view=CAME), Verdicts({VIEW.oid: NOTHING})).nothing


def test_a_relation_of_another_access_method_replaces_always() -> None:
    exotic = shape(relation(20010, "public.columnar", known=False))
    assert "public.columnar" in str(decide(footprint(), exotic, Verdicts(), Verdicts()).replace)


class TestCatalogs:
    """The schema must be as in the template, but for files that were replaced."""

    def test_rows_that_came_and_went_again_are_asked_for_and_are_no_change(self) -> None:
        written = footprint(types=CAME)
        assert catalog_questions(written, ALL) == (Question(TYPES, frozenset(CAME.came), frozenset()),)
        assert plan(written, catalogs=answered(TYPES)).nothing

    @pytest.mark.parametrize(
        ("touched", "verdicts"),
        [
            (CAME, answered(TYPES, came={(0, 1)})),
            (GONE, answered(TYPES)),
            (Touched(came={(0, 1)}, gone={(0, 1)}, overwritten=True), answered(TYPES)),
        ],
    )
    def test_a_row_more_or_less_replaces(self, touched: Touched, verdicts: Verdicts) -> None:
        made = plan(footprint(types=touched), catalogs=verdicts)
        assert made.replace == "the schema changed (pg_type)"

    def test_schemas_of_temporary_tables_may_stay(self) -> None:
        answer = answered(NAMESPACES, came=CAME.came)
        written = footprint(namespaces=CAME)
        assert plan(written, catalogs=answer._replace(temporary=2)).nothing
        assert plan(written, catalogs=answer._replace(temporary=1)).replace

    def test_a_catalog_with_another_file_replaces(self) -> None:
        assert doubtful_catalogs(Footprint({99999: Touched()}), ALL)
        assert doubtful_catalogs(footprint(classes=CAME), ALL)
        assert not doubtful_catalogs(footprint(small=CAME), ALL)
        assert plan(footprint(), catalogs=Verdicts(catalogs_moved=True)).replace == "a catalog was rewritten"

    @staticmethod
    def moved(of: Relation, **given: Any) -> Verdicts:
        entry = Entry(**{"came": True, "oid": of.oid, "filenode": 77777, "schema_hash": of.schema_hash} | given)
        return answered(CLASSES, came={(0, 9)})._replace(entries=(entry,))

    written = footprint(classes=Touched(came={(0, 9)}, gone={(0, 1)}), small=GONE)

    def test_a_table_with_another_file_is_put_back_as_a_whole(self) -> None:
        catalogs = self.moved(SMALL)
        assert table_questions(self.written, ALL, catalogs) == ()
        made = plan(self.written, catalogs=catalogs)
        assert (made.steps, made.moved) == ((RestoreTable(SMALL, "its file was replaced"),), {SMALL.oid: 77777})

    def test_a_sequence_with_another_file_is_set_back_and_an_index_needs_nothing(self) -> None:
        assert plan(self.written, catalogs=self.moved(SEQUENCE)).steps == (SetSequence(SEQUENCE.oid, STATE),)
        made = plan(footprint(classes=self.written.local[CLASSES.oid]), catalogs=self.moved(INDEX))
        assert (made.steps, made.nothing) == ((), False)

    @pytest.mark.parametrize("of", [LARGE, REACTING, VIEW])
    def test_what_cannot_be_put_back_as_a_whole_replaces(self, of: Relation) -> None:
        assert plan(self.written, catalogs=self.moved(of)).replace

    @pytest.mark.parametrize(
        "verdicts",
        [
            moved(SMALL, schema_hash=1),
            moved(TYPES),
            moved(SMALL, oid=30000),
            moved(SMALL)._replace(answers={CLASSES.oid: Answer(frozenset({(0, 9), (0, 8)}), frozenset())}),
            moved(SMALL)._replace(answers={CLASSES.oid: Answer(frozenset({(0, 9)}), frozenset({(0, 1)}))}),
            moved(SMALL, came=False),
        ],
    )
    def test_anything_else_that_changed_in_pg_class_replaces(self, verdicts: Verdicts) -> None:
        assert plan(self.written, catalogs=verdicts).replace == "the schema changed (pg_class)"

    def test_a_change_in_place_is_compared_with_the_template(self) -> None:
        written = footprint(classes=Touched(in_place={(0, 1)}))
        same = Verdicts({CLASSES.oid: NOTHING}, (Entry(False, SMALL.oid, SMALL.filenode, SMALL.schema_hash),))
        other = Verdicts({CLASSES.oid: NOTHING}, (Entry(False, SMALL.oid, SMALL.filenode, 1),))
        assert plan(written, catalogs=same).nothing
        assert plan(written, catalogs=other).replace == "the schema changed (pg_class)"
