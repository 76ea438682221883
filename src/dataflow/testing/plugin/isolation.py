"""The marker ``tdd(…)``: how a test is kept apart from the others, and how many statements it may send."""

from __future__ import annotations

from typing import Any

import pytest

ROLLBACK, DATABASE, FRESH = "rollback", "database", "fresh"
LEVELS = (ROLLBACK, DATABASE, FRESH)
MARKER = "tdd"
HELP = (
    f'{MARKER}(isolation="rollback"|"database"|"fresh", max_statements=N): how a test, class or module is '
    "isolated: its work is rolled back; or it commits in a database that is put back after it; or in a new one "
    "that is dropped then; and how many statements the body of a test may send"
)
_ISOLATION, _MAX_STATEMENTS = "isolation", "max_statements"


def wants_database(item: pytest.Item) -> bool:
    """Whether a test will have a database of its own, as far as one can tell before it runs."""
    fixtures = getattr(item, "fixturenames", ())
    if "tdd_database" in fixtures:
        return True
    asks = "tdd_test_context" in fixtures or "tdd_psycopg" in fixtures
    said = (marker.kwargs[_ISOLATION] for marker in item.iter_markers(MARKER) if _ISOLATION in marker.kwargs)
    return asks and next(said, ROLLBACK) != ROLLBACK


def isolation_of(node: pytest.Item, default: str, *allowed: str) -> str:
    """What the nearest marker says.

    :param allowed: what the fixture that asks can do; none: anything.
    :raises Failed: it says what is not possible.
    """
    wanted = _given(node, _ISOLATION, default)
    if wanted not in LEVELS:
        raise _not_understood(node)
    if allowed and wanted not in allowed:
        raise _misused(
            f'{node.nodeid}: it is marked isolation="{wanted}" and asks for tdd_database, which commits; '
            'mark it "database" or "fresh", or ask for tdd_test_context'
        )
    return str(wanted)


def most_statements(node: pytest.Item) -> int | None:
    """How many statements the body of the test may send; None: any number.

    :raises Failed: the marker says what is not possible.
    """
    most = _given(node, _MAX_STATEMENTS, None)
    if most is None:
        return None
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise _not_understood(node)
    return most


def _given(node: pytest.Item, name: str, default: Any) -> Any:
    """What the nearest marker says that says something of it."""
    for marker in node.iter_markers(MARKER):
        if marker.args or marker.kwargs.keys() - {_ISOLATION, _MAX_STATEMENTS}:
            raise _not_understood(node, marker)
        if name in marker.kwargs:
            return marker.kwargs[name]
    return default


def _not_understood(node: pytest.Item, marker: pytest.Mark | None = None) -> BaseException:
    marker = marker or node.get_closest_marker(MARKER)
    assert marker is not None, "it was looked at"
    given = ", ".join([*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())])
    return _misused(
        f"{node.nodeid}: the marker {MARKER}({given}) is not understood; "
        f'write {MARKER}(isolation="rollback"), "database" or "fresh", and max_statements=10 or another number'
    )


def _misused(text: str) -> BaseException:
    """Without a traceback, which would show this library and not the marker."""
    return pytest.fail.Exception(text, pytrace=False)
