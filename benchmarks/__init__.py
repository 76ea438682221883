"""Speed claims, to be run by hand on an idle machine: ``make benchmarks``. Each prints its parameters."""
