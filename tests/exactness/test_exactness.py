"""Whatever a test did, the database that is lent next is as the template is. See `world` for how that is seen.

`EXACTNESS_PROGRAMS` is the number of programs, `EXACTNESS_SEED` another seed than the fixed one of each test run,
and with `EXACTNESS_ALWAYS_NEW` each program gets a database that no other was in. `make exactness` runs 10,000.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.exactness.programs import programs
from tests.exactness.world import World

PROGRAMS = int(os.environ.get("EXACTNESS_PROGRAMS", "200"))
_TOLD_EVERY = 1000
SEED = int(os.environ.get("EXACTNESS_SEED", "0"))


def test_after_any_program_the_next_lease_is_as_the_template(world: World) -> None:
    @settings(
        max_examples=PROGRAMS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @seed(SEED)
    @given(st.deferred(lambda: programs(world.names)))
    def check(program: object) -> None:
        world.check(program)  # type: ignore[arg-type]
        if world.ways.total() % _TOLD_EVERY == 0:
            print(f"{world.ways.total()} of {PROGRAMS} programs", flush=True)

    print(f"\n{PROGRAMS} programs, seed {SEED}, PostgreSQL {world.version}: {world.broker.strategy}", flush=True)
    check()
    print(world.summary())
