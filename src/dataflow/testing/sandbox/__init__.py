"""A session that behaves as in production inside of a transaction that is never committed.

Stands between a driver and the server, and speaks PostgreSQL's protocol with both. BEGIN, COMMIT and ROLLBACK
become savepoints, a statement outside of a transaction stands alone, and what the driver is told (tags, the state
of the transaction, errors) is what a plain connection would have told. No I/O: `session` says what to send when
it is given what came; who moves the bytes is the business of the rooms above.
"""
