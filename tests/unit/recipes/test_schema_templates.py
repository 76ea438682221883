"""Schema templates."""

from __future__ import annotations

import pytest

from dataflow.testing.recipes.schema_templates import SchemaTemplates


def test_the_guides_templates_are_there() -> None:
    templates = SchemaTemplates()
    assert templates.names == ("simple_user", "simple_order")
    expected = 'CREATE TEMP TABLE "users" (id SERIAL PRIMARY KEY, name TEXT, email TEXT)'
    assert templates.sql("simple_user", "users") == expected


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("Users", '"Users"'),
        ('a"; DROP TABLE x; --', '"a""; DROP TABLE x; --"'),
        ("a b", '"a b"'),
        ("ü" * 31, '"' + "ü" * 31 + '"'),
    ],
)
def test_names_of_tables_are_quoted(name: str, quoted: str) -> None:
    sql = SchemaTemplates().sql("simple_user", name)
    assert sql.startswith(f"CREATE TEMP TABLE {quoted} (")


@pytest.mark.parametrize(
    ("name", "words"), [("", "cannot be"), ("a\0", "cannot be"), ("ü" * 32, "longer than 63 bytes")]
)
def test_what_cannot_be_a_name_is_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SchemaTemplates().sql("simple_user", name)


def test_registering() -> None:
    templates = SchemaTemplates()
    templates.register("tag", " word TEXT ")
    templates.register("tag", "word TEXT")  # the same again, from a second fixture
    assert templates.sql("tag", "t") == 'CREATE TEMP TABLE "t" (word TEXT)'
    with pytest.raises(ValueError, match="'tag' exists already with other columns"):
        templates.register("tag", "other TEXT")
    with pytest.raises(ValueError, match="'simple_user' exists already"):
        templates.register("simple_user", "x INT")
    with pytest.raises(ValueError, match="has no columns"):
        templates.register("empty", "  ")
    assert "tag" not in SchemaTemplates().names


def test_an_unknown_template_lists_those_that_there_are() -> None:
    with pytest.raises(LookupError, match="no schema template 'x'; there are simple_order, simple_user"):
        SchemaTemplates().sql("x", "t")
