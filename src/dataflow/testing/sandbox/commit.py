"""What a commit does besides keeping what was written: constraints, cursors and settings, as SQL. Pure."""

from __future__ import annotations

from collections.abc import Iterable

# Checks what is deferred, as a commit does, and lets later transactions begin as this one did.
CHECK = """
DO $dataflow_tdd$
DECLARE deferred text;
BEGIN
  SET CONSTRAINTS ALL IMMEDIATE;
  SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I', n.nspname, c.conname), ', ') INTO deferred
    FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.connamespace
   WHERE c.condeferred;
  IF deferred IS NOT NULL THEN EXECUTE 'SET CONSTRAINTS ' || deferred || ' DEFERRED'; END IF;
END $dataflow_tdd$
"""
_CLOSE = """
DO $dataflow_tdd$
DECLARE cursor_name text;
BEGIN
  FOR cursor_name IN SELECT name FROM pg_catalog.pg_cursors WHERE NOT is_holdable AND name IN ({names}) LOOP
    EXECUTE pg_catalog.format('CLOSE %I', cursor_name);
  END LOOP;
END $dataflow_tdd$
"""
_SAVE = """
SELECT pg_catalog.set_config({kept}, pg_catalog.concat('=', pg_catalog.current_setting({name}, true)), false)
"""
_RESTORE = """
SELECT CASE WHEN pg_catalog.starts_with(was, '=')
            THEN pg_catalog.set_config({name}, pg_catalog.substr(was, 2), false) END,
       pg_catalog.set_config({kept}, '', false)
  FROM (SELECT pg_catalog.current_setting({kept}, true) AS was OFFSET 0) AS kept
"""


def save(setting: str) -> str:
    """Keep what a setting is, in a setting of ours. What is kept goes with it where it is rolled back itself."""
    return _SAVE.format(name=literal(setting), kept=literal(f"dataflow_tdd.{setting}"))


def restore(setting: str) -> str:
    return _RESTORE.format(name=literal(setting), kept=literal(f"dataflow_tdd.{setting}"))


def close(cursors: Iterable[str]) -> str:
    return _CLOSE.replace("{names}", ", ".join(map(literal, cursors)))


def literal(text: str) -> str:
    return "'" + text.strip('"').replace("'", "''") + "'"
