"""What a customer means to buy; one open cart each."""

from __future__ import annotations

from dataclasses import dataclass

from .database import Connection
from .errors import NotFound


@dataclass(frozen=True)
class CartLine:
    sku: str
    quantity: int
    price_cents: int


async def open_cart(connection: Connection, customer_id: int) -> int:
    """The customer's open cart: the one there is, or a new one."""
    # DO NOTHING would return no id for the cart that is there; this update changes nothing and does.
    cart_id: int = await connection.fetchval(
        """
        INSERT INTO carts (customer_id) VALUES ($1)
        ON CONFLICT (customer_id) WHERE checked_out_at IS NULL DO UPDATE SET opened_at = carts.opened_at
        RETURNING id
        """,
        customer_id,
    )
    return cart_id


async def put(connection: Connection, cart_id: int, sku: str, quantity: int = 1) -> None:
    """Add so many to the cart, on top of those that are in it."""
    # The lock makes a checkout of this cart wait, or this wait for the checkout and find the cart closed.
    added = await connection.execute(
        """
        INSERT INTO cart_items (cart_id, product_id, quantity)
        SELECT carts.id, products.id, $3 FROM carts, products
        WHERE carts.id = $1 AND checked_out_at IS NULL AND sku = $2 AND on_sale FOR SHARE OF carts
        ON CONFLICT (cart_id, product_id) DO UPDATE SET quantity = cart_items.quantity + excluded.quantity
        """,
        cart_id,
        sku,
        quantity,
    )
    if added == "INSERT 0 0":
        raise NotFound(f"open cart {cart_id} or product {sku} on sale")


async def take_out(connection: Connection, cart_id: int, sku: str) -> None:
    await connection.execute(
        "DELETE FROM cart_items USING products WHERE cart_id = $1 AND product_id = products.id AND sku = $2",
        cart_id,
        sku,
    )


async def contents(connection: Connection, cart_id: int) -> list[CartLine]:
    rows = await connection.fetch(
        """
        SELECT sku, quantity, price_cents FROM cart_items JOIN products ON products.id = product_id
        WHERE cart_id = $1 ORDER BY sku
        """,
        cart_id,
    )
    return [CartLine(**row) for row in rows]
