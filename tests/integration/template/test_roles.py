"""Roles that may not do what a store needs, and what to do about it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest
from psycopg import sql
from tests.integration.template.conftest import Workshop
from tests.waiting import LIMIT_S

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import CannotCreateDatabase, ServerError, TemplateBusy
from dataflow.testing.template import databases


@pytest.fixture
def role(workshop: Workshop) -> Iterator[Dsn]:
    """A role that may log in, and no more."""
    name = f'Odd "role" {secrets.token_hex(4)}'
    with workshop.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield replace(workshop.admin, user=name)
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_without_the_right_to_create_databases_the_statement_that_gives_it_is_told(
    workshop: Workshop, role: Dsn
) -> None:
    with pytest.raises(CannotCreateDatabase) as raised:
        workshop.store(role, role).ensure(workshop.sql("SELECT 1"), LIMIT_S)
    quoted = '"' + (role.user or "").replace('"', '""') + '"'
    assert raised.value.remedy == f"as a superuser: ALTER ROLE {quoted} CREATEDB;"
    assert "CREATEDB" in (raised.value.cause or "")
    assert "TEST_DATABASE_URL" in (raised.value.option or "")
    assert isinstance(raised.value, ServerError)


def test_without_membership_in_the_builders_role_the_statement_that_gives_it_is_told(
    workshop: Workshop, role: Dsn
) -> None:
    with workshop.connect() as connection:
        connection.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(role.user or "")))
    with pytest.raises(CannotCreateDatabase) as raised:
        workshop.store(role, workshop.builder).ensure(workshop.sql("SELECT 1"), LIMIT_S)
    assert (raised.value.remedy or "").startswith('GRANT "dataflow_test" TO "Odd ""role"" ')


def test_who_is_connected_to_a_database_that_is_to_be_copied_is_named(workshop: Workshop) -> None:
    with workshop.connect() as connection:
        source, copy = (f"tdd_{secrets.token_hex(6)}" for _ in range(2))
        workshop.copies += [source, copy]
        databases.create(connection, source, workshop.builder.user or "")
        with workshop.connect(source) as visitor:
            visitor.execute("SET application_name = 'a curious person'")
            with pytest.raises(TemplateBusy, match="a curious person"):
                databases.create(connection, copy, workshop.builder.user or "", source)
