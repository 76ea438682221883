"""Who holds the connections of this process, and whether one is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dataflow.testing.diagnosis.model import Check, Detail, Diagnosis, Status
from dataflow.testing.runtime import runtime

TITLE = "Connection pool"
_OPTION = "DATAFLOW_TDD_POOL_SIZE, --tdd-pool-size"


class Verdict(StrEnum):
    """What a test that asks for a connection now would meet."""

    NO_POOL = "no pool yet"
    AVAILABLE = "available"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True)
class Holder:
    """Who holds a connection. :param held_s: since when, in seconds; :param beside: it is not one of the pool."""

    name: str
    held_s: float
    last_statement: str | None
    beside: bool = False

    def __str__(self) -> str:
        statement = f"last statement: {self.last_statement}" if self.last_statement else "no statement yet"
        beside = ", beside the pool" if self.beside else ""
        return f"{self.name}, held for {self.held_s:.1f} s{beside}, {statement}"


@dataclass(frozen=True)
class PoolSizes:
    """Connections: open now, kept at least, open at most, open and held by nobody."""

    size: int
    min_size: int
    max_size: int
    idle: int


@dataclass(frozen=True)
class PoolDiagnosis(Diagnosis):
    """:param sizes: None when there is no pool yet."""

    verdict: Verdict = Verdict.NO_POOL
    sizes: PoolSizes | None = None
    holders: tuple[Holder, ...] = ()


async def diagnose_connection_pool() -> PoolDiagnosis:
    """The pool of the running event loop and its holders. Opens nothing."""
    current = runtime()
    pool = current.manager.connection_pool if current.started else None
    if pool is None:
        return describe_pool(None, ())
    within = pool.holders
    holders = [
        Holder(context.holder, context.held_s, context.last_statement, beside=context not in within)
        for context in current.manager.active_contexts
    ]
    sizes = PoolSizes(pool.get_size(), pool.get_min_size(), pool.get_max_size(), pool.get_idle_size())
    return describe_pool(sizes, holders)


def describe_pool(sizes: PoolSizes | None, holders: Sequence[Holder]) -> PoolDiagnosis:
    """The verdict on these figures. Pure."""
    if sizes is None:
        found = "no pool yet: it is made with the first connection in this event loop"
        remedy = "use a TDD fixture, or await setup_tdd_infrastructure()"
        return PoolDiagnosis(TITLE, (Check("pool", Status.INFO, found, remedy),))
    verdict = Verdict.EXHAUSTED if sizes.idle == 0 and sizes.size >= sizes.max_size else Verdict.AVAILABLE
    return PoolDiagnosis(TITLE, (_check(verdict, sizes, holders),), verdict, sizes, tuple(holders))


def _check(verdict: Verdict, sizes: PoolSizes, holders: Sequence[Holder]) -> Check:
    details: dict[str, Detail] = {
        "size": sizes.size,
        "min_size": sizes.min_size,
        "max_size": sizes.max_size,
        "idle": sizes.idle,
        "holders": tuple(map(str, holders)),
    }
    if verdict is Verdict.AVAILABLE:
        free = sizes.idle + max(0, sizes.max_size - sizes.size)
        return Check("pool", Status.OK, f"{free} of {sizes.max_size} connections are available", details=details)
    return Check(
        "pool",
        Status.FAILED,
        f"exhausted: all {sizes.max_size} connections are held",
        "give back what get_test_connection() gave (cleanup_test_connection), or make the pool larger",
        _OPTION,
        details,
        cause="a connection was not given back, or more are needed at a time than the pool has",
    )
