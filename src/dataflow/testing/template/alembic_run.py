"""A program that migrates one database with alembic, and reports what failed. Run by its path, in a process of
its own: env.py sets up logging, imports the application, and may begin an event loop. It imports nothing of ours.

    python -P alembic_run.py URL-VARIABLE TARGET REPORT [INI] [TOML]

The report is a file of JSON: ``heads``, or ``error`` and where it happened.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any


def main(variable: str, target: str, report: str, ini: str, toml: str) -> int:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    # Only now: there may be a folder "alembic" in the project.
    sys.path[:] = json.loads(os.environ.pop("DATAFLOW_TDD_SYS_PATH"))
    config = Config(ini or None, toml_file=toml or None)
    config.set_main_option("sqlalchemy.url", os.environ.pop(variable).replace("%", "%%"))
    try:
        command.upgrade(config, target)
        heads = ScriptDirectory.from_config(config).get_heads()
    except BaseException as error:
        Path(report).write_text(json.dumps(_described(error)))
        return 1
    Path(report).write_text(json.dumps({"heads": heads}))
    return 0


def _described(error: BaseException) -> dict[str, Any]:
    server = getattr(error, "orig", None)  # SQLAlchemy's errors have the driver's inside
    told = getattr(server, "__cause__", None) or server  # asyncpg's are one further in
    diag = getattr(told, "diag", None)
    return {
        "error": _words(error, server),
        "detail": getattr(diag, "message_detail", None) or getattr(told, "detail", None),
        "hint": getattr(diag, "message_hint", None) or getattr(told, "hint", None),
        "statement": getattr(error, "statement", None),
        "frames": [list(frame)[:4] for frame in traceback.extract_tb(error.__traceback__)],
        **_revision(error.__traceback__),
    }


def _words(error: BaseException, server: BaseException | None) -> str:
    """The first line: what follows is detail and statement, or SQLAlchemy's advice."""
    if server is None:
        return f"{type(error).__name__}: {error}".strip()
    return str(server).partition("\n")[0].rpartition(">: ")[2]


def _revision(trace: TracebackType | None) -> dict[str, str]:
    """Of the innermost version script in a traceback."""
    found = {}
    while trace is not None:
        names = trace.tb_frame.f_globals
        if "down_revision" in names and "revision" in names:
            title = str(names.get("__doc__") or "").strip().partition("\n")[0]
            found = {"revision": str(names["revision"]), "title": title}
        trace = trace.tb_next
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
