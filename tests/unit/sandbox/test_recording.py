"""What is kept of the statements of a test, and what of it is shown."""

from __future__ import annotations

import struct

import pytest

from dataflow.testing.report.statements import executed
from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.prepared import Prepared
from dataflow.testing.sandbox.recording import MOST_DIFFERENT, Recorder
from dataflow.testing.sandbox.statements import Script

NUMERIC, TEXT_ARRAY = 1700, 1009


@pytest.fixture
def recorder():
    return Recorder(phase=lambda: "call")


def query(recorder: Recorder, sql: str) -> None:
    recorder.sent(b"Q", wire.message(b"Q", sql.encode() + b"\0"), lambda _name: None, 1)
    recorder.answered()


def given(recorder: Recorder, type_: int, value: bytes) -> str:
    """How a parameter in the binary format is shown."""
    parse = b"s\0SELECT $1\0" + struct.pack("!hI", 1, type_)
    prepared = {b"s": Prepared(wire.message(b"P", parse), Script(()))}.get
    bind = b"\0s\0" + struct.pack("!hhhi", 1, 1, 1, len(value)) + value + b"\0\0"
    recorder.sent(b"B", wire.message(b"B", bind), prepared, 1)
    recorder.sent(b"E", wire.message(b"E", b"\0" + struct.pack("!i", 0)), prepared, 1)
    (shown,) = recorder.statements[-1].parameters
    return shown


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO login (name, password) VALUES ('me', 'hunter2')",
        "UPDATE login SET (name, password) = ('me', 'hunter2')",
        "UPDATE login SET password = E'it\\'s hunter2'",
        "UPDATE login SET password = $p$hunter2$p$",
        "SELECT FROM login WHERE password = ANY (ARRAY['hunter2'])",
        "SELECT FROM login WHERE 'hunter2' <> password",
        "SELECT set_config('app.token', 'hunter2', false)",
        "UPDATE login SET password = 'hunter2 and no end",
    ],
)
def test_strings_of_a_statement_that_names_a_secret_are_hidden(recorder, sql):
    query(recorder, sql)
    assert "hunter2" not in recorder.statements[0].sql
    assert "hunter2" not in str(executed([recorder]))


def test_of_others_they_are_shown_and_so_are_quoted_names(recorder):
    query(recorder, "SELECT 'green' FROM tea")
    query(recorder, 'SELECT "A password", \'hunter2\' FROM "The Table" WHERE id = 7')
    green, hidden = recorder.statements
    assert green.sql == "SELECT 'green' FROM tea"
    assert hidden.sql == 'SELECT "A password", \'***\' FROM "The Table" WHERE id = 7'


def test_statements_count_even_if_there_are_many_different_ones(recorder):
    for number in range(MOST_DIFFERENT + 500):
        query(recorder, f"SELECT {number}")
    assert sum(executed([recorder]).values()) == MOST_DIFFERENT + 500
    assert len(recorder.counts) == MOST_DIFFERENT + 1


def test_a_number_with_many_digits_is_shortened(recorder):
    shown = given(recorder, NUMERIC, struct.pack("!hhHhh", 1, 32_000, 0, 0, 1))
    assert shown == "1" + "0" * 59 + "… (128001 characters)"


@pytest.mark.parametrize("value", [struct.pack("!hhHhh", 1, 0, 0x1234, 0, 1), b"", b"\x7f"])
def test_what_is_no_number_is_not_decoded(recorder, value):
    """The server refuses it, and the report is written all the same."""
    assert given(recorder, NUMERIC, value) == f"({len(value)} bytes)"


def test_an_array_whose_first_element_is_long(recorder):
    element = struct.pack("!i", 5_000) + b"x" * 5_000
    value = struct.pack("!iiIii", 1, 0, 25, 3, 1) + element * 3
    assert given(recorder, TEXT_ARRAY, value) == "{…, … (3 values)}"
