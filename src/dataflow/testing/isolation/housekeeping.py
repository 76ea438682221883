"""What drivers and data layers ask for themselves: it is no statement of the code under test."""

from __future__ import annotations

import sys
from functools import cache

# SQLAlchemy, at the first connection of an engine.
_OF_AN_ENGINE = frozenset(
    {
        b"select pg_catalog.version()",
        b"select current_schema()",
        b"show transaction isolation level",
        b"show standard_conforming_strings",
    }
)
# psycopg, of what it has prepared: behind a ROLLBACK, and one by one with a libpq before 17.
_OF_PREPARED = b"DEALLOCATE ALL"
_OF_ONE_PREPARED = b"DEALLOCATE _pg3_"
# psycopg, for the type hstore and others that are registered by name.
_OF_A_TYPE = b"SELECT\n    typname AS name, oid, typarray AS array_oid,"
# asyncpg sets it while it asks for types; some of those texts are long, and may have been cut.
_ITS_SETTING = b"set_config('jit'"
_LONG = 500


def is_housekeeping(text: bytes) -> bool:
    if text == _OF_PREPARED or text.startswith(_OF_ONE_PREPARED):
        return True
    if text in _OF_AN_ENGINE or text.startswith(_OF_A_TYPE) or _ITS_SETTING in text:
        return True
    return "asyncpg" in sys.modules and _is_introspection(text)


def _is_introspection(text: bytes) -> bool:
    texts = _introspection()
    return text in texts or (len(text) > _LONG and any(known.startswith(text) for known in texts))


@cache
def _introspection() -> frozenset[bytes]:
    from asyncpg import introspection

    return frozenset(text.encode() for text in vars(introspection).values() if isinstance(text, str) and text)
