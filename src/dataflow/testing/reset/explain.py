"""A reset in words: what was read in the log, what it means, what was done. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dataflow.testing.reset.footprint import Touched
from dataflow.testing.reset.outcome import Outcome
from dataflow.testing.reset.shape import Relation


def explain(outcome: Outcome, database: str) -> Iterator[str]:
    """Lines for people."""
    yield f"database   {database}"
    if outcome.written is not None:
        written = outcome.written
        yield f"log        {written.since} to {written.up_to}, {written.size_bytes} bytes"
    for relation, touched in outcome.touched:
        yield f"           {_name(relation)}: {_kinds(touched)}"
    for line in str(outcome.plan).split("; "):
        yield f"plan       {line}"
    yield f"time       {outcome.duration_ms:.2f} ms"
    for change in outcome.cluster.others:
        yield f"outside    {change} was made or changed, and stays"


def _name(relation: Relation | None) -> str:
    return "a file that the template does not have" if relation is None else relation.name


def _kinds(touched: Touched) -> str:
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(touched.kinds.items()))
    return f"{kinds}; {len(touched.came)} rows came, {len(touched.gone)} may have gone"
