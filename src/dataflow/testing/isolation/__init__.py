"""How a test is kept apart from all others: context, connection, pool, and the transaction rolled back.

Here lives what happens on a connection. Which server it leads to is decided in `server`; who asks for it
(a fixture, a script) is not known here.
"""
