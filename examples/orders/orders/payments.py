"""Money in and out, through a gateway that may refuse or fail.

A charge cannot be rolled back: one transaction announces it, a second one records it. When the order has
changed in between, the money is given back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .database import Connection
from .errors import NotFound, PaymentDeclined, RefundTooLarge, WrongStatus


class Gateway(Protocol):
    async def charge(self, amount_cents: int, key: str) -> str:
        """The charge's reference; the same key is charged once. Raises PaymentDeclined."""

    async def give_back(self, reference: str, amount_cents: int) -> None: ...


@dataclass(frozen=True)
class Payment:
    id: int
    order_id: int
    amount_cents: int
    status: str
    reference: str | None


async def pay(connection: Connection, order_id: int, gateway: Gateway, *, key: str) -> Payment:
    """Charge the order's total. Repeat it with the same key after any failure: that charges once at most."""
    payment = await _announce(connection, order_id, key)
    if payment.status == "captured":
        return payment
    if payment.status != "pending":
        raise PaymentDeclined(f"payment {key} was {payment.status}")

    try:
        reference = await gateway.charge(payment.amount_cents, key)
    except PaymentDeclined:
        await _settle(connection, payment.id, "declined", None)
        raise
    try:
        return await _capture(connection, payment, reference)
    except WrongStatus:
        await gateway.give_back(reference, payment.amount_cents)
        await _settle(connection, payment.id, "returned", reference)
        raise


async def _announce(connection: Connection, order_id: int, key: str) -> Payment:
    async with connection.transaction():
        status = await connection.fetchval("SELECT status FROM orders WHERE id = $1 FOR UPDATE", order_id)
        if status is None:
            raise NotFound(f"order {order_id}")
        known = await connection.fetchrow(
            """
            SELECT id, order_id, amount_cents, status, reference FROM payments
            WHERE order_id = $1 AND key = $2
            """,
            order_id,
            key,
        )
        if known is not None:
            return Payment(**known)
        if status != "placed":
            raise WrongStatus(f"order {order_id} is {status}")
        row = await connection.fetchrow(
            """
            INSERT INTO payments (order_id, key, amount_cents)
            SELECT $1, $2, sum(quantity * unit_price_cents) FROM order_lines WHERE order_id = $1
            RETURNING id, order_id, amount_cents, status, reference
            """,
            order_id,
            key,
        )
        assert row is not None
        return Payment(**row)


async def _capture(connection: Connection, payment: Payment, reference: str) -> Payment:
    async with connection.transaction():
        captured = await _settle(connection, payment.id, "captured", reference)
        if captured is None:
            # The same payment was made a second time meanwhile; for the gateway both are one charge.
            return await find_payment(connection, payment.id)
        paid = await connection.execute(
            "UPDATE orders SET status = 'paid' WHERE id = $1 AND status = 'placed'", payment.order_id
        )
        if paid == "UPDATE 0":
            raise WrongStatus(f"order {payment.order_id} changed while it was being paid")
        return captured


async def _settle(connection: Connection, payment_id: int, status: str, reference: str | None) -> Payment | None:
    row = await connection.fetchrow(
        """
        UPDATE payments SET status = $2, reference = $3 WHERE id = $1 AND status = 'pending'
        RETURNING id, order_id, amount_cents, status, reference
        """,
        payment_id,
        status,
        reference,
    )
    return None if row is None else Payment(**row)


async def find_payment(connection: Connection, payment_id: int) -> Payment:
    row = await connection.fetchrow(
        "SELECT id, order_id, amount_cents, status, reference FROM payments WHERE id = $1", payment_id
    )
    if row is None:
        raise NotFound(f"payment {payment_id}")
    return Payment(**row)


async def refund(
    connection: Connection, payment_id: int, amount_cents: int, reason: str, gateway: Gateway
) -> None:
    """Give back a part of a payment or all of it, in as many steps as you like."""
    async with connection.transaction():
        row = await connection.fetchrow(
            "SELECT amount_cents, reference FROM payments WHERE id = $1 AND status = 'captured' FOR UPDATE",
            payment_id,
        )
        if row is None:
            raise NotFound(f"captured payment {payment_id}")
        refunded = await connection.fetchval(
            "SELECT coalesce(sum(amount_cents), 0)::bigint FROM refunds WHERE payment_id = $1", payment_id
        )
        if refunded + amount_cents > row["amount_cents"]:
            raise RefundTooLarge(f"{row['amount_cents'] - refunded} cents are left of payment {payment_id}")
        await connection.execute(
            "INSERT INTO refunds (payment_id, amount_cents, reason) VALUES ($1, $2, $3)",
            payment_id,
            amount_cents,
            reason,
        )
        # Last, so that a gateway that fails undoes the rest.
        await gateway.give_back(row["reference"], amount_cents)
