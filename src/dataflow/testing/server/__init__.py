"""Where PostgreSQL is: the embedded server that we run ourselves, and the guard in front of any other.

What lives here, from the caller inwards:

- `embedded`: the embedded server's functions: a run leases an empty database (`lease`); servers are started,
  shown and stopped by hand (`manage`);
- `external`: the guide's default address, a probe, and the guard against databases that are not for tests;
- `keeper`: the process of its own that owns one `postgres`; `reception` is its control socket, `roster` who
  uses it and when it may stop, `stock` its databases, `protocol` the messages, `link` the other end;
- `launch`, `bringup`, `cluster`, `postgres`: from files on disk to a server that answers;
- `binaries`, `owner`, `cache`, `layout`, `locks`: programs, users, places and mutual exclusion.

No driver, event loop or test framework is imported here; only a keeper loads psycopg, when it first has SQL
to run.
"""
