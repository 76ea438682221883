"""Orders, stock and payments of a coffee roaster, on PostgreSQL through asyncpg.

Every function takes a connection first. Those that write more than one row open a transaction of their own,
which becomes a savepoint when the caller has one open already.
"""
