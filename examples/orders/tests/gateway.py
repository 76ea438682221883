"""A payment gateway that keeps books, and declines or fails when it is told to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from orders.errors import PaymentDeclined


class FakeGateway:
    def __init__(self) -> None:
        self.charged: dict[str, int] = {}
        self.given_back: list[tuple[str, int]] = []
        self.declines = False
        self.unreachable = False
        self.while_charging: Callable[[], Awaitable[object]] | None = None

    async def charge(self, amount_cents: int, key: str) -> str:
        if self.unreachable:
            raise ConnectionError("gateway unreachable")
        if self.declines:
            raise PaymentDeclined("insufficient funds")
        self.charged[key] = amount_cents
        if self.while_charging is not None:
            meanwhile, self.while_charging = self.while_charging, None
            await meanwhile()
        return f"charge-{key}"

    async def give_back(self, reference: str, amount_cents: int) -> None:
        if self.unreachable:
            raise ConnectionError("gateway unreachable")
        self.given_back.append((reference, amount_cents))
