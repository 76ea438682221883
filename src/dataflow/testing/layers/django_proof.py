"""Whether others committed something while a test ran that Django rolls back, as for our own rollback tests."""

from __future__ import annotations

from collections.abc import Collection
from time import monotonic
from typing import TYPE_CHECKING

from dataflow.testing.events import RolledBack
from dataflow.testing.isolation.outcomes import commit_escaped, escapes
from dataflow.testing.proof.escape import PutBack

if TYPE_CHECKING:
    from dataflow.testing.proof.horizon import Horizon
    from dataflow.testing.runtime import Runtime


_WAY_OUT = (
    "let that code use Django's connection, in the thread of the test; or mark the test "
    "django_db(transaction=True), or make it a TransactionTestCase"
)


class Watch:
    """From the moment at which a test has its transaction to its end.

    :ivar spoilt: databases, by name, that have to be replaced, when nobody works there.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._began: tuple[Horizon, float] | None = None
        self.spoilt: set[str] = set()

    def begin(self) -> None:
        """
        :raises ServerError: the server cannot be asked.
        """
        self._began = self._runtime.databases.horizon(), monotonic()

    def end(self, test_id: str, databases: Collection[str], own: Collection[int]) -> None:
        """:param databases: of the test, by name. :param own: process ids of its sessions.

        :raises CommitEscaped: something was committed there, and that is an error.
        """
        __tracebackhide__ = True
        from dataflow.testing.proof.horizon import Window

        began, self._began = self._began, None
        if began is None:
            return
        window = Window(began[0], None, began[1], tuple(own))
        verdicts = [self._runtime.databases.judge(window, name) for name in databases]
        unproven = next((verdict.unproven for verdict in verdicts if verdict.unproven is not None), None)
        self._runtime.listener(RolledBack(test_id, unproven))
        self.spoilt.update(
            name
            for name, verdict in zip(databases, verdicts, strict=True)
            if verdict.escape is not None and verdict.escape.put_back is PutBack.LATER
        )
        found = [
            escapes(test_id, verdict.escape, remedy=_WAY_OUT)
            for verdict in verdicts
            if verdict.escape is not None
        ]
        for escape in found:
            self._runtime.listener(escape)
        if found and self._runtime.settings.escapes == "error":
            raise commit_escaped(found[0])
