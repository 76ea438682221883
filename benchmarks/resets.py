"""What a test that commits costs: our reset beside what others do, on the same server, in turn.

A test opens a connection of its own, inserts two rows into two tables, commits and closes. Measured is what comes
after: until the next test may have the database. Seed rows are in the two tables that the test touches; with
BENCH_SEEDED=all in each table, as the rivals that empty every table have to put them back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import NamedTuple

import psycopg

from benchmarks.setting import options
from dataflow.testing.dsn import Dsn
from dataflow.testing.lease.broker import Broker, Terms
from dataflow.testing.server.embedded import EmbeddedLease, lease_database

TABLES = [int(n) for n in os.environ.get("BENCH_TABLES", "5,50,300,1000").split(",")]
ROWS = [int(n) for n in os.environ.get("BENCH_ROWS", "0,100,10000,1000000").split(",")]
TESTS = int(os.environ.get("BENCH_TESTS", "200"))
RIVAL_S = float(
    os.environ.get("BENCH_RIVAL_S", "3")
)  # a rival is measured for so long, five times at least; 0: not at all
MANY = int(os.environ.get("BENCH_MANY", "5000"))
SEEDED_ALL = os.environ.get("BENCH_SEEDED") == "all"
TEMPLATE = "bench_template"

INSERT = ("INSERT INTO t0 (name, email) VALUES ('a', 'new')", "INSERT INTO t1 (name, email) VALUES ('a', 'new')")
PROGRAMS = {
    "inserts": INSERT,
    "reads": ("SELECT count(*) FROM t0 WHERE id = 1",),
    "updates its own": (*INSERT, "UPDATE t0 SET name = 'b' WHERE email = 'new'"),
}
SEED_PROGRAM = ("UPDATE t0 SET name = 'b' WHERE id = 1", "DELETE FROM t1 WHERE id = 2")


class Case(NamedTuple):
    tables: int
    rows: int

    def seeded(self) -> range:
        return range(self.tables if SEEDED_ALL else 2)


def run(folder: Path) -> None:
    lease = lease_database(options(folder), what="benchmark")
    try:
        print(
            f"PostgreSQL {lease.version}, UNIX socket, fsync off, data in {folder}; "
            f"{TESTS} tests each; ms from the end of the test to a database for the next: median (p95)"
        )
        for tables in TABLES:
            for rows in ROWS:
                _case(lease, Case(tables, rows))
        _many(lease)
    finally:
        lease.close()


def _case(lease: EmbeddedLease, case: Case) -> None:
    _make_template(lease, case)
    print(f"{case.tables} tables, {case.rows} seed rows in {'each' if SEEDED_ALL else 'two of them'}")
    broker = _broker(lease)
    _await_copies(lease, broker)
    try:
        for name, program in PROGRAMS.items():
            if name == "inserts" or case.rows in (0, 100):
                print(f"  ours, a test that {name:<16} {_shown(_ours(broker, program, TESTS))}")
        if case.rows == 100:
            print(f"  ours, a test that changes seed rows {_shown(_ours(broker, SEED_PROGRAM, TESTS))}")
    finally:
        broker.close()
    for name, rival in RIVALS.items() if RIVAL_S else ():
        if name.startswith("clone") or case.rows <= 10_000:
            print(f"  {name:<34} {_shown(rival(lease, case))}")


def _broker(lease: EmbeddedLease) -> Broker:
    return Broker(lease.admin_dsn.with_database("postgres"), lease.dsn, lambda: TEMPLATE, Terms(spares=1))


def _await_copies(lease: EmbeddedLease, broker: Broker) -> None:
    """Until a database is there, and the copy that is kept ready: making it keeps the disk busy meanwhile."""
    broker.take_back(broker.lend("the first test"))
    with _connect(lease.admin_dsn.with_database("postgres")) as admin:
        while True:
            (ready,) = admin.execute(
                "SELECT count(*) FROM pg_database WHERE datname LIKE 'tdd\\_lease\\_%'"
            ).fetchone() or (0,)
            if ready >= 2:
                return
            sleep(0.05)


def _ours(broker: Broker, program: tuple[str, ...], tests: int) -> list[float]:
    """From the end of a test to a database that the next one has: given back, and lent."""
    times = []
    lease = broker.lend("test")
    for number in range(tests):
        _test(lease.dsn, program)
        started = perf_counter()
        broker.take_back(lease)
        lease = broker.lend(f"test {number}")
        times.append((perf_counter() - started) * 1e3)
    broker.take_back(lease)
    return times


def _many(lease: EmbeddedLease) -> None:
    _make_template(lease, Case(50, 100))
    broker = _broker(lease)
    _await_copies(lease, broker)
    times = _ours(broker, INSERT, MANY)
    broker.close()
    print(f"{MANY} in a row, 50 tables, 100 seed rows in two of them")
    print(f"  the first hundred  {_shown(times[:100])}\n  the last hundred   {_shown(times[-100:])}")
    with _connect(lease.admin_dsn.with_database("postgres")) as admin:
        left = admin.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'tdd\\_lease\\_%'").fetchone()
    print(f"  databases left     {left[0] if left else '?'}")


def _test(dsn: Dsn, program: tuple[str, ...]) -> None:
    with psycopg.connect(dsn.url(), autocommit=True) as connection:
        for statement in program:
            connection.execute(statement.encode())


def _make_template(lease: EmbeddedLease, case: Case) -> None:
    role = lease.dsn.user or ""
    with _connect(lease.admin_dsn.with_database("postgres")) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)".encode())
        admin.execute(f"CREATE DATABASE {TEMPLATE} OWNER {role} TEMPLATE template0".encode())
    with _connect(lease.dsn.with_database(TEMPLATE)) as connection:
        for number in range(case.tables):
            parent = f"bigint REFERENCES t{number - 1}" if number else "bigint"
            connection.execute(
                f"CREATE TABLE t{number} (id bigserial PRIMARY KEY, parent {parent}, name text NOT NULL,"
                " email text UNIQUE, created timestamptz DEFAULT now())".encode()
            )
        for number in case.seeded():
            connection.execute(_seed(number, case.rows).encode())
    with _connect(lease.admin_dsn.with_database(TEMPLATE)) as admin:
        admin.execute("VACUUM (FREEZE, ANALYZE)")


def _seed(number: int, rows: int) -> str:
    return f"INSERT INTO t{number} (name, email) SELECT 'n' || g, 'e' || g FROM generate_series(1, {rows}) g"


def _rival(
    lease: EmbeddedLease, prepare: Callable[[psycopg.Connection], None], reset: Callable[..., str]
) -> list[float]:
    """Times of a rival that works in one lasting copy, over one connection as the owner."""
    name = "bench_rival"
    with _connect(lease.admin_dsn.with_database("postgres")) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {lease.dsn.user}".encode())
        dsn = lease.admin_dsn.with_database(name)
        with _connect(dsn) as connection:
            prepare(connection)

            def one() -> None:
                cursor = connection.execute(reset.encode())
                while cursor.nextset():
                    pass

            times = _timed(one, lambda: _test(dsn, INSERT))
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    return times


def _timed(reset: Callable[[], None], test: Callable[[], None]) -> list[float]:
    times: list[float] = []
    until = perf_counter() + RIVAL_S
    while len(times) < 5 or (perf_counter() < until and len(times) < TESTS):
        test()
        started = perf_counter()
        reset()
        times.append((perf_counter() - started) * 1e3)
    return times


def _seeds(case: Case) -> str:
    """Seed rows from copies in a schema beside: the cheapest way to have them at hand."""
    return "; ".join(
        f"INSERT INTO t{number} SELECT * FROM seeds.t{number}; "
        f"SELECT setval('t{number}_id_seq', {max(1, case.rows)})"
        for number in (case.seeded() if case.rows else ())
    )


def _keep_seeds(case: Case) -> Callable[[psycopg.Connection], None]:
    def prepare(connection: psycopg.Connection) -> None:
        connection.execute("CREATE SCHEMA seeds")
        for number in case.seeded() if case.rows else ():
            connection.execute(f"CREATE TABLE seeds.t{number} AS TABLE t{number}".encode())

    return prepare


def _truncate(lease: EmbeddedLease, case: Case) -> list[float]:
    names = ", ".join(f"t{number}" for number in range(case.tables))
    statement = f"BEGIN; TRUNCATE {names} RESTART IDENTITY CASCADE; {_seeds(case)}; COMMIT"
    return _rival(lease, _keep_seeds(case), statement)


def _delete(lease: EmbeddedLease, case: Case) -> list[float]:
    deletes = "; ".join(f"DELETE FROM t{number}" for number in reversed(range(case.tables)))
    statement = f"BEGIN; SET LOCAL session_replication_role = replica; {deletes}; {_seeds(case)}; COMMIT"
    return _rival(lease, _keep_seeds(case), statement)


def _clone(strategy: str) -> Callable[[EmbeddedLease, Case], list[float]]:
    def measure(lease: EmbeddedLease, case: Case) -> list[float]:
        name = "bench_clone"
        create = f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {lease.dsn.user} STRATEGY {strategy}".encode()
        with _connect(lease.admin_dsn.with_database("postgres")) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            admin.execute(create)

            def reset() -> None:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
                admin.execute(create)

            times = _timed(reset, lambda: _test(lease.dsn.with_database(name), INSERT))
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        return times

    return measure


RIVALS: dict[str, Callable[[EmbeddedLease, Case], list[float]]] = {
    "clone, FILE_COPY, and drop": _clone("FILE_COPY"),
    "clone, WAL_LOG, and drop": _clone("WAL_LOG"),
    "TRUNCATE all and seed again": _truncate,
    "DELETE from all and seed again": _delete,
}


def _connect(dsn: Dsn) -> psycopg.Connection:
    return psycopg.connect(dsn.url(), autocommit=True)


def _shown(times: list[float]) -> str:
    ordered = sorted(times)
    return f"{median(ordered):9.2f}  ({ordered[int(len(ordered) * 0.95) - 1]:.2f}), n={len(times)}"
