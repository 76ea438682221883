"""What DISCARD ALL and DEALLOCATE ALL do to a session that several drivers share, as SQL. Pure."""

from __future__ import annotations

from dataflow.testing.sandbox.commit import literal

_DISCARD_ALL = (
    "CLOSE ALL",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ALL",
    "DEALLOCATE ALL",
    "UNLISTEN *",
    "SELECT pg_catalog.pg_advisory_unlock_all()",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
    "DISCARD PLANS",
)
_DEALLOCATE = """
DO $dataflow_tdd$
DECLARE prepared text;
BEGIN
  FOR prepared IN SELECT name FROM pg_catalog.pg_prepared_statements
                   WHERE name NOT IN ({names}) AND NOT pg_catalog.starts_with(name, 'dataflow_tdd_') LOOP
    EXECUTE pg_catalog.format('DEALLOCATE %I', prepared);
  END LOOP;
END $dataflow_tdd$
"""


def discard_all(spared: tuple[str, ...]) -> tuple[str, ...]:
    """Each by itself, since the whole is refused in a transaction.

    :param spared: names of statements that other drivers have prepared.
    """
    return tuple(deallocate_all(spared) if sql == "DEALLOCATE ALL" and spared else sql for sql in _DISCARD_ALL)


def deallocate_all(spared: tuple[str, ...]) -> str:
    return _DEALLOCATE.replace("{names}", ", ".join(map(literal, spared)))
