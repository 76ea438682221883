"""Who uses a server, and when it may stop. Pure: the time is an argument, in seconds of a monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from dataflow.testing.server.protocol import User

# A server just started waits this long for the lease it was started for, even if it should not linger later.
FIRST_LEASE_S = 5.0


@dataclass
class Roster:
    """The holders of leases by connection.

    :param idle_s: how long the server outlives its last lease; the last comer's wish counts.
    :param pinned: somebody asked for the server by hand: it stays until it is stopped by hand.
    """

    idle_s: float
    pinned: bool
    idle_since: float
    _was_used: bool = False
    _users: dict[object, User] = field(default_factory=dict)

    @property
    def users(self) -> tuple[User, ...]:
        return tuple(self._users.values())

    @property
    def connections(self) -> tuple[object, ...]:
        return tuple(self._users)

    def user(self, connection: object) -> User | None:
        return self._users.get(connection)

    def join(self, connection: object, user: User, idle_s: float) -> None:
        self._users[connection] = user
        self.idle_s = idle_s
        self._was_used = True

    def leave(self, connection: object, now: float) -> User | None:
        user = self._users.pop(connection, None)
        if user is not None and not self._users:
            self.idle_since = now
        return user

    def stops_at(self) -> float | None:
        """When to stop if nothing changes; None: not for being idle."""
        if self._users or self.pinned:
            return None
        return self.idle_since + (self.idle_s if self._was_used else max(self.idle_s, FIRST_LEASE_S))
