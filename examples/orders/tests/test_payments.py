from __future__ import annotations

import asyncpg
import pytest

from orders import checkout, payments
from orders.database import Connection
from orders.errors import PaymentDeclined, RefundTooLarge, WrongStatus

from .factories import a_placed_order
from .gateway import FakeGateway


async def test_a_payment_is_for_the_whole_order(connection: Connection, gateway: FakeGateway) -> None:
    order = await a_placed_order(connection, {"HOUSE": 2, "FILTERS": 1})
    payment = await payments.pay(connection, order.id, gateway, key="k1")
    assert (payment.status, payment.amount_cents, payment.reference) == ("captured", 2250, "charge-k1")
    assert (await checkout.find_order(connection, order.id)).status == "paid"


async def test_repeating_a_payment_charges_once(connection: Connection, gateway: FakeGateway) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    first = await payments.pay(connection, order.id, gateway, key="k1")
    gateway.unreachable = True
    assert await payments.pay(connection, order.id, gateway, key="k1") == first


async def test_an_order_is_paid_once(connection: Connection, gateway: FakeGateway) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    await payments.pay(connection, order.id, gateway, key="k1")
    with pytest.raises(WrongStatus, match="is paid"):
        await payments.pay(connection, order.id, gateway, key="k2")
    assert list(gateway.charged) == ["k1"]


async def test_the_database_refuses_a_second_captured_payment(
    connection: Connection, gateway: FakeGateway
) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    payment = await payments.pay(connection, order.id, gateway, key="k1")
    with pytest.raises(asyncpg.UniqueViolationError, match="payments_one_captured"):
        async with connection.transaction():
            await connection.execute(
                """
                INSERT INTO payments (order_id, key, amount_cents, status, reference)
                VALUES ($1, 'k2', 900, 'captured', 'charge-k2')
                """,
                order.id,
            )
    assert await payments.find_payment(connection, payment.id) == payment


async def test_a_key_belongs_to_one_order(connection: Connection, gateway: FakeGateway) -> None:
    first = await a_placed_order(connection, {"HOUSE": 1})
    second = await a_placed_order(connection, {"HOUSE": 1})
    await payments.pay(connection, first.id, gateway, key="k1")
    with pytest.raises(asyncpg.UniqueViolationError, match="payments_key_key"):
        await payments.pay(connection, second.id, gateway, key="k1")
    assert (await payments.pay(connection, second.id, gateway, key="k2")).status == "captured"


async def test_after_a_declined_payment_another_one_may_succeed(
    connection: Connection, gateway: FakeGateway
) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    gateway.declines = True
    with pytest.raises(PaymentDeclined, match="insufficient funds"):
        await payments.pay(connection, order.id, gateway, key="k1")

    gateway.declines = False
    with pytest.raises(PaymentDeclined, match="k1 was declined"):
        await payments.pay(connection, order.id, gateway, key="k1")
    assert (await payments.pay(connection, order.id, gateway, key="k2")).status == "captured"


async def test_a_payment_can_be_repeated_after_a_network_failure(
    connection: Connection, gateway: FakeGateway
) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    gateway.unreachable = True
    with pytest.raises(ConnectionError):
        await payments.pay(connection, order.id, gateway, key="k1")
    assert await connection.fetchval("SELECT status FROM payments WHERE key = 'k1'") == "pending"

    gateway.unreachable = False
    assert (await payments.pay(connection, order.id, gateway, key="k1")).status == "captured"


async def test_money_for_an_order_that_was_cancelled_meanwhile_is_given_back(
    connection: Connection, gateway: FakeGateway
) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    gateway.while_charging = lambda: checkout.cancel_order(connection, order.id)
    with pytest.raises(WrongStatus, match="while it was being paid"):
        await payments.pay(connection, order.id, gateway, key="k1")
    assert gateway.given_back == [("charge-k1", 900)]
    assert await connection.fetchval("SELECT status FROM payments WHERE key = 'k1'") == "returned"
    assert (await checkout.find_order(connection, order.id)).status == "cancelled"


async def test_the_same_payment_made_twice_at_once_is_one_payment(
    connection: Connection, gateway: FakeGateway
) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    gateway.while_charging = lambda: payments.pay(connection, order.id, gateway, key="k1")
    payment = await payments.pay(connection, order.id, gateway, key="k1")
    assert payment.status == "captured"
    assert gateway.given_back == []


@pytest.mark.parametrize("parts", [[900], [300, 600], [1, 1, 898]])
async def test_a_payment_can_be_refunded_in_parts(
    connection: Connection, gateway: FakeGateway, parts: list[int]
) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    payment = await payments.pay(connection, order.id, gateway, key="k1")
    for part in parts:
        await payments.refund(connection, payment.id, part, "too dark", gateway)
    assert gateway.given_back == [("charge-k1", part) for part in parts]


async def test_no_more_is_refunded_than_was_paid(connection: Connection, gateway: FakeGateway) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    payment = await payments.pay(connection, order.id, gateway, key="k1")
    await payments.refund(connection, payment.id, 800, "too dark", gateway)
    with pytest.raises(RefundTooLarge, match="100 cents are left"):
        await payments.refund(connection, payment.id, 101, "still too dark", gateway)


async def test_a_refund_that_fails_can_be_repeated(connection: Connection, gateway: FakeGateway) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    payment = await payments.pay(connection, order.id, gateway, key="k1")
    gateway.unreachable = True
    with pytest.raises(ConnectionError):
        await payments.refund(connection, payment.id, 900, "too dark", gateway)

    gateway.unreachable = False
    await payments.refund(connection, payment.id, 900, "too dark", gateway)
    assert gateway.given_back == [("charge-k1", 900)]
