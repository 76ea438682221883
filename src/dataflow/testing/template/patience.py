"""A session of psycopg that does not wait for ever for a server that says nothing: one that is stopped, or gone
from the network. The server's own limits cannot help then."""

from __future__ import annotations

from collections.abc import Generator
from time import monotonic
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")


class ImpatientConnection(psycopg.Connection[Any]):
    """:ivar answer_limit_s: seconds that the server may say nothing to a statement; 0: as many as it likes."""

    answer_limit_s: float = 0.0

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """As psycopg's, which looks up from its waiting ten times in a second.

        :raises psycopg.OperationalError: nothing was said for too long; the connection is closed.
        """
        if not self.answer_limit_s:
            return super().wait(gen, *arguments, **options)
        try:
            return super().wait(_limited(gen, self.answer_limit_s), *arguments, **options)
        except TimeoutError as error:
            # A Terminate would wait for the server again if it had left much unread.
            self.pgconn.finish()
            raise psycopg.OperationalError(str(error)) from None


def _limited(gen: Generator[Any, Any, T], limit_s: float) -> Generator[Any, Any, T]:
    deadline = monotonic() + limit_s
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and monotonic() > deadline:
                raise TimeoutError(f"the server has not answered for {limit_s:.0f} s")
            wanted = gen.send(ready)
    except StopIteration as ended:
        value: T = ended.value
        return value
