"""What the shop may refuse.

OrdersError
|-- NotFound           there is no such product, cart, order or payment
|-- EmailTaken         somebody else has registered this address
|-- AlreadyReceived    this delivery has been booked before
|-- EmptyCart          nothing to order
|-- OutOfStock         less is left than was asked for
|-- WrongStatus        the order is past the point where this could be done
|-- PaymentDeclined    the gateway refused the charge
|-- RefundTooLarge     more would be given back than was paid
`-- Busy               others kept getting in the way; try again later
"""


class OrdersError(Exception):
    """The shop refused to do something; nothing was changed."""


class NotFound(OrdersError):
    pass


class EmailTaken(OrdersError):
    pass


class AlreadyReceived(OrdersError):
    pass


class EmptyCart(OrdersError):
    pass


class OutOfStock(OrdersError):
    def __init__(self, product_id: int, missing: int) -> None:
        super().__init__(f"{missing} too few of product {product_id}")
        self.product_id = product_id
        self.missing = missing


class WrongStatus(OrdersError):
    pass


class PaymentDeclined(OrdersError):
    pass


class RefundTooLarge(OrdersError):
    pass


class Busy(OrdersError):
    pass
