"""``python -m benchmarks [name …]``: run all benchmarks, or those named."""

from __future__ import annotations

import sys

from benchmarks import overhead, resets, startup, statements, with_django, with_psycopg
from benchmarks.setting import describe_machine, scratch

BENCHMARKS = {
    "overhead": overhead.run,
    "startup": startup.run,
    "resets": resets.run,
    "statements": statements.run,
    "django": with_django.run,
    "psycopg": with_psycopg.run,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    print(describe_machine())
    for name in names or BENCHMARKS:
        with scratch() as folder:
            print(f"\n== {name}")
            BENCHMARKS[name](folder)
    return 0


sys.exit(main(sys.argv[1:]))
