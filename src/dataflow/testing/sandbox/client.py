"""The end of a driver: what it sends goes in here, and whether it has to wait for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow.testing.sandbox import wire
from dataflow.testing.sandbox.conversation import Driver, skip

if TYPE_CHECKING:
    from dataflow.testing.sandbox.session import Session

# Seconds that a driver waits for another one of its test, unless somebody says otherwise.
TURN_LIMIT_S = 5.0
# As many connections as a pool of asyncpg has; they cost the server nothing.
MOST_IN_A_POOL = 10
_CANCELLED = wire.error("57014", "canceling statement due to user request")
_TURN_HINT = 'they share one session; end it first, or mark the test tdd(isolation="database")'


class Client:
    """The end of a driver."""

    def __init__(self, session: Session, driver: Driver) -> None:
        self._session = session
        self._driver = driver

    def feed(self, data: bytes | memoryview) -> None:
        """What the driver sends."""
        driver = self._driver
        driver.messages += wire.taken(driver.incoming, data)
        if driver.skipping:
            skip(driver)
        self._session.work()

    @property
    def waits(self) -> bool:
        """For its turn: others are at work."""
        return bool(self._driver.messages) and self._session.rival(self._driver) is not None

    def waits_for(self, other: Client) -> bool:
        """It is that one's turn."""
        return bool(self._driver.messages) and self._session.rival(self._driver) is other._driver

    @property
    def at_work(self) -> bool:
        """What the server does now is its."""
        return self._session.works_for(self._driver)

    def drop_waiting(self) -> None:
        """What waits for its turn is cancelled, and the server has never heard of it."""
        if self.waits:
            self.refuse(_CANCELLED)

    def waited_too_long(self, limit_s: float) -> None:
        """Let it wait no longer. :param limit_s: seconds that it has waited."""
        self.refuse_turn(f"waited {limit_s:g} s for the transaction that another connection of the test began")

    def refuse_turn(self, text: str) -> None:
        """Let it wait no longer: another driver is in a transaction, as `text` says."""
        # Libraries on top of drivers show the message, and not the hint.
        self.refuse(wire.error("55P03", f"{text}: end that first", _TURN_HINT))

    def refuse(self, error: bytes) -> None:
        """Let it wait no longer: it is told that its statement failed."""
        driver = self._driver
        driver.deliver(error)
        driver.skipping = True
        skip(driver)

    def close(self) -> None:
        """It went away; its transaction is undone."""
        self._session.left(self._driver)
