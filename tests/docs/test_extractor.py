"""The rule by which snippets are found; a rule that finds nothing would let every page pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .snippets import Command, projects
from .test_snippets import PAGES

PAGE = """
# Title

```ini file=pytest.ini
[pytest]
```

## Tests and scripts

```python
print("a script")
```

```python
async def test_it():
    pass
```

```python no-run
nothing
```

## Commands

```console
$ dataflow-tdd server stop
did not … run
[exit status 1]
$ true
```

```text
# not a heading
```
"""


def test_each_heading_is_a_project_with_the_files_of_the_title(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    first, second = projects(page)
    assert (first.name, second.name) == ("page.md: Tests and scripts", "page.md: Commands")
    assert first.files == {
        "pytest.ini": "[pytest]\n",
        "script1.py": 'print("a script")\n',
        "test_snippet2.py": "async def test_it():\n    pass\n",
    }
    assert [command.line for command in first.runs] == ["python script1.py", "pytest -q"]
    assert second.runs == [Command("dataflow-tdd server stop", 1, ("did not … run",)), Command("true", 0, ())]


def test_shown_lines_must_be_printed_in_their_order() -> None:
    command = Command("x", 0, ("one … three", "four"))
    assert command.missing_in("zero\none two three\nfour") is None
    assert command.missing_in("four\none two three") == "four"
    assert command.missing_in("one\nthree\nfour") == "one … three"


def test_a_block_that_is_neither_runnable_nor_marked_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```yaml\na: 1\n```\n")
    with pytest.raises(ValueError, match="```yaml"):
        projects(page)


def test_nearly_all_snippets_run() -> None:
    infos = [info for page in PAGES for info in re.findall(r"^```(\w.*)$", page.read_text(), re.MULTILINE)]
    not_run = [info for info in infos if "no-run" in info]
    assert len(infos) > 50
    assert len(not_run) <= 5, not_run
