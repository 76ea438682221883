"""What a reset found and did, as a value."""

from __future__ import annotations

from typing import NamedTuple

from dataflow.testing.reset.footprint import Touched
from dataflow.testing.reset.log import Written
from dataflow.testing.reset.plan import Plan
from dataflow.testing.reset.shape import Relation


class ClusterChange(NamedTuple):
    """Changes in the catalogs that belong to no database.

    :param own: what changed about the test's database itself. :param others: what else, in words.
    :param stale: what is known of these catalogs does not hold any more.
    """

    own: str | None = None
    others: tuple[str, ...] = ()
    stale: bool = False


class Outcome(NamedTuple):
    """
    :param written: None when the log was not looked at. :param touched: what was written to each relation; to
        one that the template does not have, if None. :param duration_ms: of all of it.
    """

    plan: Plan
    written: Written | None = None
    touched: tuple[tuple[Relation | None, Touched], ...] = ()
    duration_ms: float = 0.0
    cluster: ClusterChange = ClusterChange()
