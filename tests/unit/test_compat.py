"""What a run of a library's own tests is compared with (`tests/compat`)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.compat.comparing import Outcome, compared, counted, read_known, read_outcomes
from tests.compat.libraries import LIBRARIES

KNOWN = """
[queue.both]
"no such server" = ["tests/test_a.py::test_tls"]
[queue.sandbox]
"they take turns" = ["*::test_two_*"]
"""


def line(test: str, outcome: str, why: str = "") -> str:
    return json.dumps({"test": test, "outcome": outcome, "why": why})


def test_only_a_failure_that_nobody_knows_is_new():
    outcomes = read_outcomes(
        [
            line("tests/test_a.py::test_tls", "failed", "no TLS"),
            line("tests/test_a.py::test_two_at_once", "failed", "its turn"),
            line("tests/test_a.py::test_other", "failed", "why"),
            line("tests/test_a.py::test_fine", "passed"),
            line("tests/test_a.py::test_left_out", "skipped"),
        ]
    )
    of_sandbox = compared(outcomes, read_known(KNOWN, "queue", "sandbox"))
    assert dict(of_sandbox.new) == {"tests/test_a.py::test_other": "why"}
    assert of_sandbox.known["they take turns"] == ["tests/test_a.py::test_two_at_once"]
    of_server = compared(outcomes, read_known(KNOWN, "queue", "server"))
    assert set(of_server.new) == {"tests/test_a.py::test_other", "tests/test_a.py::test_two_at_once"}
    assert counted(outcomes) == (1, 3, 1)


def test_a_known_failure_that_passes_is_told():
    outcomes = {"tests/test_a.py::test_two_at_once": Outcome("passed")}
    assert compared(outcomes, read_known(KNOWN, "queue", "sandbox")).gone == (
        "tests/test_a.py::test_tls",
        "*::test_two_*",
    )


def test_of_a_test_that_was_told_twice_the_failure_counts():
    told = [line("a", "passed"), line("a", "failed", "why"), line("a", "skipped")]
    assert read_outcomes(told) == {"a": Outcome("failed", "why")}


def test_names_with_brackets_are_matched_as_they_are():
    outcomes = {"t.py::test[a]": Outcome("failed", "why"), "t.py::testa": Outcome("failed", "why")}
    assert set(compared(outcomes, {"t.py::test[[]a]": "known"}).new) == {"t.py::testa"}


def test_what_is_known_belongs_to_a_library_that_is_run():
    directory = Path(__file__).parent.parent / "compat"
    for library in LIBRARIES:
        for way in library.ways:
            read_known((directory / "known.toml").read_text(), library.name, way)
    heads = [head for head in (directory / "known.toml").read_text().splitlines() if head.startswith("[")]
    assert set(heads) <= {f"[{library.name}.{way}]" for library in LIBRARIES for way in ("both", *library.ways)}
