"""DataFlow. This distribution brings :mod:`dataflow.testing` and nothing else."""
