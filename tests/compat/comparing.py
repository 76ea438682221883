"""What became of a library's tests, compared with what is known. Pure."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple


class Outcome(NamedTuple):
    """:param outcome: passed, failed or skipped. :param why: of what did not pass."""

    outcome: str
    why: str = ""


class Difference(NamedTuple):
    """
    :param new: failed, and nobody knows why. :param gone: patterns of known failures of which nothing failed.
    :param known: failed tests, by the reason."""

    new: Mapping[str, str]
    known: Mapping[str, list[str]]
    gone: tuple[str, ...]


def read_outcomes(lines: Iterable[str]) -> dict[str, Outcome]:
    """By test, from the lines that `compat_outcomes` wrote; of a test that was told twice, the worse."""
    found: dict[str, Outcome] = {}
    for line in lines:
        told = json.loads(line)
        before = found.get(told["test"])
        if before is None or before.outcome != "failed":
            found[told["test"]] = Outcome(told["outcome"], told["why"])
    return found


def read_known(text: str, library: str, way: str) -> dict[str, str]:
    """Reasons, by patterns of the names of tests; of both ways, and of this one."""
    tables = tomllib.loads(text).get(library, {})
    found: dict[str, str] = {}
    for table in (tables.get("both", {}), tables.get(way, {})):
        for reason, patterns in table.items():
            found |= dict.fromkeys(patterns, reason)
    return found


def compared(outcomes: Mapping[str, Outcome], known: Mapping[str, str]) -> Difference:
    new: dict[str, str] = {}
    explained: dict[str, list[str]] = {}
    used: set[str] = set()
    for test, (outcome, why) in outcomes.items():
        if outcome != "failed":
            continue
        pattern = next((each for each in known if fnmatchcase(test, each)), None)
        if pattern is None:
            new[test] = why
        else:
            used.add(pattern)
            explained.setdefault(known[pattern], []).append(test)
    return Difference(new, explained, tuple(each for each in known if each not in used))


def counted(outcomes: Mapping[str, Outcome]) -> tuple[int, int, int]:
    """Passed, failed, skipped."""
    of = [each.outcome for each in outcomes.values()]
    return of.count("passed"), of.count("failed"), of.count("skipped")
