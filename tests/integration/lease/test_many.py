"""Many leases in a row: nothing grows, and nothing is left behind."""

from __future__ import annotations

import os
from statistics import median

import pytest
from tests.integration.lease.conftest import BY_LOG, Make


@BY_LOG
@pytest.mark.timeout(1200)
def test_thousands_of_leases_leave_nothing_behind_and_do_not_grow(make: Make) -> None:
    """500, or as many as the environment variable LEASES says."""
    leases = int(os.environ.get("LEASES", "500"))
    place = make(
        "CREATE TABLE t (id serial PRIMARY KEY, v text);"
        "INSERT INTO t (v) SELECT 'x' FROM generate_series(1, 50);"
        "CREATE TABLE u (id serial PRIMARY KEY, v text)"
    )
    sizes: list[int] = []
    times_ms: list[float] = []
    names = set()
    for number in range(leases):
        lease = place.broker.lend("a test")
        names.add(lease.name)
        with lease.connect_psycopg(autocommit=True) as connection:
            connection.execute("INSERT INTO u (v) SELECT repeat('y', 100) FROM generate_series(1, 20)")
            connection.execute("CREATE TEMP TABLE s (a serial)")
            if number % 5 == 0:
                connection.execute("UPDATE t SET v = v || '!'")
            if number % 50 == 49:
                row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
                assert row is not None
                sizes.append(row[0])
        returned = place.broker.take_back(lease)
        assert returned is not None
        times_ms.append(returned.outcome.duration_ms)
    assert len(names) == 1
    # Each relation grows to what a thousand dead rows need, those of the catalogs included.
    assert max(sizes) - sizes[0] < 1_500_000, sizes
    assert median(times_ms[-100:]) < 3 * median(times_ms[:100])
    with place.lent() as lease:
        assert place.differences(lease) == []
    query = f"SELECT count(*) FROM pg_database WHERE datname LIKE '{lease.name.rpartition('_')[0]}%'"
    assert place.ask_admin(query)[0][0] <= 1 + place.terms.spares + 1


def test_dead_rows_of_unlogged_tables_do_not_pile_up(make: Make) -> None:
    place = make("CREATE UNLOGGED TABLE t (v text)")
    sizes = []
    for _ in range(40):
        with place.lent() as lease, lease.connect_psycopg(autocommit=True) as connection:
            connection.execute("INSERT INTO t SELECT repeat('x', 500) FROM generate_series(1, 300)")
            row = connection.execute("SELECT pg_relation_size('t')").fetchone()
            assert row is not None
            sizes.append(row[0])
    assert max(sizes) < 8 * sizes[0], sizes
