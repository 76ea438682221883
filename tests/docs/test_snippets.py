"""What the documentation shows works: each snippet is run as a reader would run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dataflow.testing.server.ports import free_port

from .snippets import Command, Project, projects

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LIMIT_S = 60
# The documentation shows the usual port; here something else may listen on it.
SHOWN_PORT = "5433"


@pytest.mark.parametrize("project", [p for page in PAGES for p in projects(page)], ids=lambda p: p.name)
def test_a_reader_who_does_what_is_written_sees_what_is_written(
    project: Project, reader: dict[str, str], tmp_path: Path
) -> None:
    port = str(free_port())
    for name, text in project.files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for command in project.runs:
        shown = tuple(line.replace(SHOWN_PORT, port) for line in command.shown)
        command = Command(command.line.replace(SHOWN_PORT, port), command.status, shown)
        done = subprocess.run(
            ["/bin/sh", "-c", command.line],
            cwd=tmp_path,
            env=reader,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == command.status, f"$ {command.line}\n{done.stdout}"
        assert command.missing_in(done.stdout) is None, f"$ {command.line}\n{done.stdout}"
