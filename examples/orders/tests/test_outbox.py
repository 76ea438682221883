from __future__ import annotations

import pytest

from orders import checkout, outbox
from orders.database import Connection
from orders.errors import OutOfStock
from orders.outbox import Message

from .factories import a_cart, a_paid_order, a_placed_order


class Recipient:
    """Takes messages, except those about orders that it `refuses`."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.refuses: set[int] = set()

    async def __call__(self, message: Message) -> None:
        if message.payload["number"] in self.refuses:
            raise ConnectionError("recipient unreachable")
        self.received.append(message)

    @property
    def topics(self) -> list[str]:
        return [message.topic for message in self.received]


async def test_each_step_of_an_order_is_announced(connection: Connection) -> None:
    order = await a_paid_order(connection, {"HOUSE": 1})
    await checkout.collect_order(connection, order.pickup_code)
    recipient = Recipient()
    assert await outbox.dispatch(connection, recipient) == 3
    assert recipient.topics == ["order.placed", "order.paid", "order.collected"]
    assert {message.payload["number"] for message in recipient.received} == {order.number}


async def test_an_order_that_keeps_its_status_is_not_announced(connection: Connection) -> None:
    order = await a_placed_order(connection, {"HOUSE": 1})
    await connection.execute("UPDATE orders SET status = status WHERE id = $1", order.id)
    assert await connection.fetchval("SELECT count(*) FROM outbox") == 1


async def test_an_order_that_failed_is_not_announced(connection: Connection) -> None:
    with pytest.raises(OutOfStock):
        await a_placed_order(connection, {"DECAF": 99})
    assert await outbox.dispatch(connection, Recipient()) == 0


async def test_a_message_goes_out_once(connection: Connection) -> None:
    await a_placed_order(connection, {"HOUSE": 1})
    recipient = Recipient()
    assert await outbox.dispatch(connection, recipient) == 1
    assert await outbox.dispatch(connection, recipient) == 0
    assert recipient.topics == ["order.placed"]


async def test_a_message_that_fails_holds_up_no_other(connection: Connection) -> None:
    bad = await a_placed_order(connection, {"HOUSE": 1})
    good = await a_placed_order(connection, {"HOUSE": 1})
    recipient = Recipient()
    recipient.refuses = {bad.number}
    assert await outbox.dispatch(connection, recipient, limit=1) == 0
    assert await outbox.dispatch(connection, recipient, limit=1) == 1

    recipient.refuses = set()
    assert await outbox.dispatch(connection, recipient) == 1
    assert [message.payload["number"] for message in recipient.received] == [good.number, bad.number]


async def test_no_more_than_the_limit_is_sent(connection: Connection) -> None:
    cart_id = await a_cart(connection, {"HOUSE": 1})
    order = await checkout.place_order(connection, cart_id)
    await checkout.cancel_order(connection, order.id)
    recipient = Recipient()
    assert await outbox.dispatch(connection, recipient, limit=1) == 1
    assert recipient.topics == ["order.placed"]
