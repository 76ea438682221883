-- The database of a coffee roaster that takes orders online and hands them over at the counter.
-- Money is in cents. Goods are kept in lots: what one delivery brought of one product.

CREATE TYPE order_status AS ENUM ('placed', 'paid', 'collected', 'cancelled');
CREATE TYPE payment_status AS ENUM ('pending', 'captured', 'declined', 'returned');

CREATE TABLE customers (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL,
    name  text NOT NULL CHECK (name <> '')
);
CREATE UNIQUE INDEX customers_email ON customers (lower(email));

CREATE TABLE products (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku         text NOT NULL UNIQUE CHECK (sku ~ '^[A-Z0-9-]+$'),
    name        text NOT NULL,
    price_cents integer NOT NULL CHECK (price_cents > 0),
    attributes  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    on_sale     boolean NOT NULL DEFAULT true
);
CREATE INDEX products_attributes ON products USING gin (attributes jsonb_path_ops);

CREATE TABLE deliveries (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    supplier    text NOT NULL,
    note        text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (supplier, note)
);

CREATE TABLE lots (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id bigint NOT NULL REFERENCES deliveries,
    product_id  bigint NOT NULL REFERENCES products,
    on_hand     integer NOT NULL,
    reserved    integer NOT NULL DEFAULT 0,
    UNIQUE (delivery_id, product_id),
    CONSTRAINT lots_quantities CHECK (reserved >= 0 AND reserved <= on_hand)
);
CREATE INDEX lots_free ON lots (product_id, id) WHERE on_hand > reserved;

CREATE TABLE carts (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id    bigint NOT NULL REFERENCES customers,
    opened_at      timestamptz NOT NULL DEFAULT now(),
    checked_out_at timestamptz
);
CREATE UNIQUE INDEX carts_one_open ON carts (customer_id) WHERE checked_out_at IS NULL;

CREATE TABLE cart_items (
    cart_id    bigint NOT NULL REFERENCES carts ON DELETE CASCADE,
    product_id bigint NOT NULL REFERENCES products,
    quantity   integer NOT NULL CONSTRAINT cart_items_quantity CHECK (quantity BETWEEN 1 AND 99),
    PRIMARY KEY (cart_id, product_id)
);

CREATE SEQUENCE order_number START 1001;

CREATE TABLE orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number      bigint NOT NULL UNIQUE DEFAULT nextval('order_number'),
    customer_id bigint NOT NULL REFERENCES customers,
    cart_id     bigint NOT NULL UNIQUE REFERENCES carts,
    status      order_status NOT NULL DEFAULT 'placed',
    pickup_code text NOT NULL CHECK (pickup_code ~ '^[0-9]{4}$'),
    placed_at   timestamptz NOT NULL DEFAULT now()
);
ALTER SEQUENCE order_number OWNED BY orders.number;

-- A code may be used again once its order has left the counter.
CREATE UNIQUE INDEX orders_pickup_code ON orders (pickup_code) WHERE status IN ('placed', 'paid');

CREATE TABLE order_lines (
    order_id         bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    product_id       bigint NOT NULL REFERENCES products,
    quantity         integer NOT NULL CHECK (quantity > 0),
    unit_price_cents integer NOT NULL CHECK (unit_price_cents > 0),
    PRIMARY KEY (order_id, product_id)
);

CREATE TABLE reservations (
    order_id bigint NOT NULL REFERENCES orders,
    lot_id   bigint NOT NULL REFERENCES lots,
    quantity integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, lot_id)
);

CREATE TABLE payments (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id     bigint NOT NULL REFERENCES orders,
    key          text NOT NULL UNIQUE,
    amount_cents bigint NOT NULL CHECK (amount_cents > 0),
    status       payment_status NOT NULL DEFAULT 'pending',
    reference    text,
    CHECK ((status IN ('captured', 'returned')) = (reference IS NOT NULL))
);
CREATE UNIQUE INDEX payments_one_captured ON payments (order_id) WHERE status = 'captured';

CREATE TABLE refunds (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id   bigint NOT NULL REFERENCES payments,
    amount_cents bigint NOT NULL CHECK (amount_cents > 0),
    reason       text NOT NULL
);

CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic      text NOT NULL,
    payload    jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at    timestamptz,
    failures   integer NOT NULL DEFAULT 0
);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL;

-- Whatever changes an order's status tells the world, in the same transaction.
CREATE FUNCTION announce_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (topic, payload)
    VALUES ('order.' || NEW.status,
            jsonb_build_object('number', NEW.number, 'customer_id', NEW.customer_id));
    PERFORM pg_notify('outbox', '');
    RETURN NULL;
END $$;

CREATE TRIGGER announce_new_order AFTER INSERT ON orders
    FOR EACH ROW EXECUTE FUNCTION announce_order();
CREATE TRIGGER announce_new_status AFTER UPDATE OF status ON orders
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION announce_order();
