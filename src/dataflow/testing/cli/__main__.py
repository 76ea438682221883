"""`python -m dataflow.testing.cli`, for when the command is not on PATH."""

from __future__ import annotations

import sys

from dataflow.testing.cli import main

if __name__ == "__main__":
    sys.exit(main())
