"""The marker ``tdd(isolation=…)``: how a test is kept apart from the others."""

from __future__ import annotations

import pytest

ROLLBACK, DATABASE, FRESH = "rollback", "database", "fresh"
LEVELS = (ROLLBACK, DATABASE, FRESH)
MARKER = "tdd"
HELP = (
    f'{MARKER}(isolation="rollback"|"database"|"fresh"): how a test, class or module is isolated: its work is '
    "rolled back; or it commits in a database that is put back after it; or in a new one that is dropped then"
)


def wants_database(item: pytest.Item) -> bool:
    """Whether a test will have a database of its own, as far as one can tell before it runs."""
    fixtures = getattr(item, "fixturenames", ())
    if "tdd_database" in fixtures:
        return True
    marker = item.get_closest_marker(MARKER)
    return (
        marker is not None
        and ("tdd_test_context" in fixtures or "tdd_psycopg" in fixtures)
        and marker.kwargs.get("isolation", ROLLBACK) != ROLLBACK
    )


def isolation_of(node: pytest.Item, default: str, *allowed: str) -> str:
    """What the nearest marker says.

    :param allowed: what the fixture that asks can do; none: anything.
    :raises Failed: it says what is not possible.
    """
    marker = node.get_closest_marker(MARKER)
    if marker is None:
        return default
    unknown = set(marker.kwargs) - {"isolation"}
    wanted = marker.kwargs.get("isolation", default)
    if marker.args or unknown or wanted not in LEVELS:
        given = ", ".join(
            [*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())]
        )
        raise _misused(
            f"{node.nodeid}: the marker {MARKER}({given}) is not understood; "
            f'write {MARKER}(isolation="rollback"), "database" or "fresh"'
        )
    if allowed and wanted not in allowed:
        raise _misused(
            f'{node.nodeid}: it is marked isolation="{wanted}" and asks for tdd_database, which commits; '
            'mark it "database" or "fresh", or ask for tdd_test_context'
        )
    return str(wanted)


def _misused(text: str) -> BaseException:
    """Without a traceback, which would show this library and not the marker."""
    return pytest.fail.Exception(text, pytrace=False)
