"""Tests against a real PostgreSQL at the price of a unit test. The public names are in `tdd_support`."""
