from __future__ import annotations

import asyncpg
import pytest

from orders import customers
from orders.database import Connection
from orders.errors import EmailTaken


async def test_a_registered_customer_is_found(connection: Connection) -> None:
    customer_id = await customers.register(connection, "ada@example.org", "Ada")
    assert await customers.find(connection, "ada@example.org") == customer_id


async def test_a_stranger_is_not_found(connection: Connection) -> None:
    assert await customers.find(connection, "ada@example.org") is None


@pytest.mark.parametrize("same", ["ada@example.org", "ADA@example.org", "Ada@Example.Org"])
async def test_an_address_is_taken_in_any_case(connection: Connection, same: str) -> None:
    await customers.register(connection, "ada@example.org", "Ada")
    with pytest.raises(EmailTaken, match=same):
        await customers.register(connection, same, "Somebody else")

    # The failed statement took nothing else with it.
    assert await customers.register(connection, "grace@example.org", "Grace")


async def test_a_customer_has_a_name(connection: Connection) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await customers.register(connection, "ada@example.org", "")
    assert await customers.find(connection, "ada@example.org") is None
