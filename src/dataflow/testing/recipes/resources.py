"""Exclusive use of named resources (a port, a folder, a tenant) among the tasks of one process."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dataflow.testing.errors import ResourceError


class TDDResourceManager:
    """Hands out names, each to one holder at a time.

    Allocation never waits, so no two tasks can wait for each other.
    """

    __test__ = False

    def __init__(self) -> None:
        self._held: dict[str, Callable[[], Any] | None] = {}

    @property
    def allocated_resources(self) -> frozenset[str]:
        return frozenset(self._held)

    async def allocate(self, resource_name: str, on_release: Callable[[], Any] | None = None) -> bool:
        """Take a resource; False if somebody has it.

        :param on_release: called (and awaited, if it returns an awaitable) when the resource is released.
        """
        if resource_name in self._held:
            return False
        self._held[resource_name] = on_release
        return True

    async def release(self, resource_name: str) -> None:
        """Give a resource back. Harmless when nobody has it."""
        on_release = self._held.pop(resource_name, None)
        if on_release is not None:
            result = on_release()
            if inspect.isawaitable(result):
                await result

    async def release_all(self) -> None:
        """Release everything, the last first, also when a release fails.

        :raises ResourceError: some releases failed; it names them, and all others were done.
        """
        failed: list[str] = []
        for name in reversed(list(self._held)):
            try:
                await self.release(name)
            except Exception as error:  # the others must be released all the same
                failed.append(f"{name}: {type(error).__name__}: {error}")
        if failed:
            raise ResourceError(
                "releasing failed for " + "; ".join(failed),
                cause="the on_release of these resources raised",
                remedy="mend it; the other resources were released",
            )
