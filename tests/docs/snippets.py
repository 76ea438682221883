"""The snippets of Markdown files, as small projects that can be run.

Each heading begins a project; named files under the title of the page belong to all of its projects. Fenced
blocks are told apart by their info string:

    python file=test_x.py    a file of that name (so with any language)
    python                   a file too: test_snippet.py if it has a test, else a script, which is run
    console                  each line that begins with "$ " is run by a shell; the lines below it must be in
                             what it printed, in that order ("…" stands for anything); it must succeed, or
                             end as a last line such as "[exit status 1]" says
    … no-run                 shown to the reader only; so are text, sql and toml

Of known libraries, sybil runs snippets in the process of the tests, and pytest-examples runs single files;
ours need several files, a pytest of their own and a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(
    r"^(?P<heading>#+ [^\n]*)$|^```(?P<info>[^\n]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
_STATUS = re.compile(r"^\[exit status (\d+)\]$", re.MULTILINE)
_SHOWN_ONLY = {"text", "sql", "toml"}


@dataclass(frozen=True)
class Command:
    """A line for the shell, its exit status, and the lines that it must print."""

    line: str
    status: int
    shown: tuple[str, ...]

    def missing_in(self, output: str) -> str | None:
        """The first shown line that `output` does not have below the one before."""
        position = 0
        for line in self.shown:
            pattern = re.escape(line.strip()).replace("…", ".*?")
            found = re.compile(pattern).search(output, position)
            if found is None:
                return line
            position = found.end()
        return None


@dataclass
class Project:
    """Files to write, scripts to run, and commands; `named` are the files that the reader gives a name."""

    name: str
    files: dict[str, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)

    @property
    def runs(self) -> list[Command]:
        """The commands as written; tests and scripts that none of them mentions are run after them."""
        written = " ".join(command.line for command in self.commands)
        scripts = [name for name in self.files if name.startswith("script") and name not in written]
        runs = [*self.commands, *(Command(f"python {name}", 0, ()) for name in scripts)]
        if "pytest" not in written and any(name.startswith("test_") for name in self.files):
            runs.append(Command("pytest -q", 0, ()))
        return runs


def projects(path: Path) -> list[Project]:
    """All projects of a Markdown file that have something to run."""
    found: list[Project] = []
    for match in _BLOCK.finditer(path.read_text(encoding="utf-8")):
        if match["heading"]:
            found.append(Project(f"{path.name}: {match['heading'].lstrip('# ')}"))
            found[-1].files.update(found[0].named)
        else:
            _add(found[-1], match["info"].split(), match["body"])
    return [project for project in found if project.runs]


def _add(project: Project, info: list[str], body: str) -> None:
    language, *words = info
    file = next((word.removeprefix("file=") for word in words if word.startswith("file=")), None)
    if "no-run" in words or (language in _SHOWN_ONLY and file is None):
        return
    if language == "console":
        project.commands += _commands(body)
    elif file is not None:
        project.files[file] = project.named[file] = body
    elif language == "python":
        kind = "test_snippet" if re.search(r"^(async )?def test_", body, re.MULTILINE) else "script"
        project.files[f"{kind}{len(project.files)}.py"] = body
    else:
        raise ValueError(f"{project.name}: ```{' '.join(info)} is neither runnable nor marked no-run")


def _commands(body: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, _, rest = part.partition("\n")
        status = _STATUS.search(rest)
        shown = tuple(filter(None, (text.strip() for text in _STATUS.sub("", rest).splitlines())))
        yield Command(line, int(status[1]) if status else 0, shown)
