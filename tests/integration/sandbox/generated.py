"""Programs that hypothesis makes up. `make conformance` runs more of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import hypothesis

PROGRAMS = int(os.environ.get("CONFORMANCE_PROGRAMS", "120"))
SEED = os.environ.get("CONFORMANCE_SEED")


def check_each(strategy: Any, check: Callable[[Any], None], found: Iterable[Any] = ()) -> None:
    """:param found: programs that once differed; they are checked first."""

    @hypothesis.settings(
        max_examples=PROGRAMS,
        deadline=None,
        derandomize=SEED is None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(strategy)
    def checked(program: Any) -> None:
        check(program)

    for program in found:
        checked = hypothesis.example(program)(checked)
    (hypothesis.seed(int(SEED))(checked) if SEED is not None else checked)()
