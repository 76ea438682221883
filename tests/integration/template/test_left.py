"""A database as a test suite has left it, copied in the place of a template."""

from __future__ import annotations

import secrets
from contextlib import suppress

import psycopg
import pytest
from tests.integration.template.conftest import LIMIT_S, Workshop

from dataflow.testing.template import databases
from dataflow.testing.template.left import settle


def test_a_copy_has_the_rows_and_sequences_that_write_to_the_log_at_once(workshop: Workshop) -> None:
    name = f"tdd_{secrets.token_hex(6)}"
    workshop.copies.append(name)
    with workshop.connect() as connection:
        databases.create(connection, name, workshop.builder.user or "", "template1")
    visitor = workshop.connect(name)
    visitor.execute("CREATE TABLE t (n serial); INSERT INTO t VALUES (DEFAULT), (DEFAULT)")
    settle(workshop.admin, name, LIMIT_S)
    with pytest.raises(psycopg.OperationalError):
        visitor.execute("SELECT 1")
    with suppress(psycopg.Error):
        visitor.close()
    # Ahead of what it says, which a copy would inherit: its next values would not be in the log.
    assert workshop.rows(name, "SELECT last_value, log_cnt, is_called FROM t_n_seq") == [(2, 0, True)]
    assert workshop.rows(name, "SELECT count(*) FROM t") == [(2,)]
