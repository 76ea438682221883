"""When the keeper does its housekeeping. Pure: the time is an argument, in seconds of a monotonic clock."""

from __future__ import annotations

# Runs come in bursts (one worker per core): housekeeping waits for a moment without requests, but not for ever.
QUIET_S = 0.1
PUT_OFF_S = 1.0
# A step takes a core for some 0.1 s. Short runs shall not have to share it, as long as there is a spare database.
IN_USE_S = 10.0


class Pace:
    def __init__(self, now: float) -> None:
        self._since = now  # until then there was nothing to do

    def nothing_to_do(self, now: float) -> None:
        self._since = now

    def patience(self, now: float, *, quiet: bool, waits: bool) -> float:
        """Seconds to wait for requests.

        :param quiet: there were none in the last turn. :param waits: for the end of runs.
        """
        if waits:
            return max(0.0, self._since + IN_USE_S - now)
        return 0.0 if quiet else QUIET_S

    def due(self, now: float, *, quiet: bool, waits: bool) -> bool:
        """Whether to do a step."""
        if waits:
            return now - self._since >= IN_USE_S
        return quiet or now - self._since >= PUT_OFF_S

    def done(self, now: float, *, in_use: bool) -> None:
        """A step was done. While runs are at work the others have waited for as long."""
        if not in_use:
            self._since = now
