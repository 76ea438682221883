#!/bin/sh
# The main job: the tests of real applications, on a real PostgreSQL that nobody had to install.
set -eu
cd "$(dirname "$0")/orders"

echo "Running the tests of examples/orders, a small asyncpg application, on a real PostgreSQL."
python -m pytest -q "$@"

cd ../fastapi
echo
echo "Running the tests of examples/fastapi, whose requests commit, fail and roll back by SQLAlchemy."
python -m pytest -q "$@"

cat <<'NEXT'

Next: read examples/orders/tests/conftest.py (all that a project needs), then break a line of
examples/orders/orders/stock.py and run this again.
NEXT
