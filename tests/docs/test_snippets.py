"""What the documentation shows works: each snippet is run as a reader would run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.ports import unused_port

from .snippets import Command, Project, projects

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LIMIT_S = 60
# The documentation shows the usual port. Here somebody's own server may listen on it, and would be used by all
# who neither name a server nor ask for the embedded one. That they ask is nothing that the reader sees.
SHOWN_PORT = "5433"
ASKS = {"DATAFLOW_TDD_SERVER": "embedded"}
SEEN_OF_IT = "DATAFLOW_TDD_SERVER: server embedded\n" + " " * len("settings   ")


@pytest.mark.parametrize("project", [p for page in PAGES for p in projects(page)], ids=lambda p: p.name)
def test_a_reader_who_does_what_is_written_sees_what_is_written(
    project: Project, reader: dict[str, str], tmp_path: Path
) -> None:
    port = str(unused_port())
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
            env=reader if "TEST_DATABASE_URL" in command.line else reader | ASKS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
        output = done.stdout.replace(SEEN_OF_IT, "")
        assert done.returncode == command.status, f"$ {command.line}\n{output}"
        assert command.missing_in(output) is None, f"$ {command.line}\n{output}"
