"""The statements of a test in words: the last ones, if it failed; and of which there are many. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from dataflow.testing.sandbox.recording import Recorder, SentStatement, as_shown, controls_transaction

TITLE = "SQL of this test"
LAST_SHOWN = 30
GROUPS_SHOWN = 10
_SHOWN_CHARACTERS = 300
_CALL = "call"
# Statements that differ in these only are called equal.
_TEXT_LITERAL = re.compile(r"'(?:[^']|'')*'")
_NUMBER = re.compile(r"(?<![\w$])\d+(?:\.\d+)?")


def section(recorders: Sequence[Recorder]) -> list[str]:
    """The last statements, one or two lines each; nothing if there were none."""
    kept = [statement for recorder in recorders for statement in recorder.kept]
    total = sum(recorder.total for recorder in recorders)
    if not kept:
        return []
    last = kept[-LAST_SHOWN:]
    several = len({statement.connection for statement in last}) > 1
    first = f"{total} statements, the last {len(last)}:" if total > len(last) else ""
    return [*filter(None, [first]), *(line for each in last for line in _lines(each, several=several))]


def _lines(statement: SentStatement, *, several: bool) -> Iterator[str]:
    took = "not answered" if statement.duration_ms is None else f"{statement.duration_ms:.2f} ms"
    which = f" #{statement.connection}" if several else ""
    error = f"  ERROR {statement.error}" if statement.error else ""
    times = f"  {statement.times} times" if statement.times > 1 else ""
    yield f"{statement.phase:<8}{which} {took:>12}  {_shortened(statement.sql)}{times}{error}"
    if values := statement.parameters:
        numbered = ", ".join(f"${number} = {value}" for number, value in enumerate(values, 1))
        yield f"{'':<8}{' ' * len(which)} {'':>12}    with {numbered}"


def executed(recorders: Iterable[Recorder]) -> Counter[str]:
    """How often the body of a test sent what, without what only begins and ends transactions.

    Statements that differ in literals only count as one.
    """
    found: Counter[str] = Counter()
    for recorder in recorders:
        for (phase, text), times in recorder.counts.items():
            if phase == _CALL and not controls_transaction(text):
                found[_alike(as_shown(text))] += times
    return found


def over_budget(test_id: str, found: Counter[str], most: int) -> str | None:
    """What to say when a test sends more statements than it may; None when it does not."""
    total = sum(found.values())
    if total <= most:
        return None
    groups = found.most_common()
    lines = [f"{times:>6} x  {_shortened(text)}" for text, times in groups[:GROUPS_SHOWN]]
    if len(groups) > GROUPS_SHOWN:
        lines.append(f"          and {len(groups) - GROUPS_SHOWN} others")
    repeated = "a loop that asks for each row by itself" if groups[0][1] > 1 else "the code does more than before"
    return "\n".join(
        [
            f"{test_id}: {total} statements were sent, and max_statements allows {most}:",
            *lines,
            f"  likely cause: {repeated}",
            "  way out: ask for all rows at once (a join, = ANY($1), eager loading of your ORM), or allow more",
            "  option: the marker tdd(max_statements=…)",
        ]
    )


def _alike(text: str) -> str:
    return _NUMBER.sub("?", _TEXT_LITERAL.sub("?", " ".join(text.split())))


def _shortened(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
