"""What the pages name exists: modules, tests, public names, error texts, files."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow.testing import tdd_support
from dataflow.testing.options import OPTIONS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "dataflow" / "testing"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))

_CODE = re.compile(r"`([^`\n]+)`")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def text_constants(path: Path) -> Iterator[str]:
    """The string literals of a module; of formatted ones, what stands between the braces is "…"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", prose(page))
    here = [(page.parent / file if file else page, heading) for file, heading in links if "://" not in file]
    missing = [(file, heading) for file, heading in here if not file.exists() or heading not in _anchors(file)]
    assert missing == []


def _anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as GitHub makes it; "" for the page."""
    if page.suffix != ".md":
        return {""}
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {"", *(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)}


def test_the_map_names_every_room_and_module_once_and_nothing_else() -> None:
    page = prose(DOCS / "architecture.md")
    rows = re.findall(r"^\| `(\w[\w/]*(?:\.py|/))` \| (.*) \|$", page, re.MULTILINE)
    rooms = [f"{path.parent.name}/" for path in SOURCE.glob("*/__init__.py")]
    assert sorted(place for place, _ in rows) == sorted([*rooms, *_modules(SOURCE, ".py")])
    for room in rooms:
        named = [code for code in _CODE.findall(dict(rows)[room]) if re.fullmatch(r"[a-z_]+", code)]
        assert sorted(named) == _modules(SOURCE / room), room


def _modules(room: Path, ending: str = "") -> list[str]:
    return sorted(path.stem + ending for path in room.glob("*.py") if not path.stem.startswith("__"))


def test_the_guide_map_names_what_exists_and_tests_that_exist() -> None:
    rows = [line for line in prose(DOCS / "guide-map.md").splitlines() if "tests/" in line]
    assert len(rows) > 20
    for path, name in re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", "\n".join(rows)):
        assert (ROOT / path).exists(), path
        assert not name or re.search(rf"^(async )?def {name}\b", (ROOT / path).read_text(), re.MULTILINE), name


def test_public_names_on_the_guide_map_exist() -> None:
    page = prose(DOCS / "guide-map.md").partition("\n## ")[0]
    fixtures = importlib.import_module("dataflow.testing.plugin.fixtures")
    async_fixtures = importlib.import_module("dataflow.testing.plugin.async_fixtures")
    known = {*tdd_support.__all__, *vars(fixtures), *vars(async_fixtures)}
    known |= {name for option in OPTIONS for name in (option.environment, option.flag, option.ini)}
    for row in re.findall(r"^\| [^|]+ \| ([^|]+) \|", page, re.MULTILINE):
        for code in _CODE.findall(row):
            if re.fullmatch(r"[A-Za-z_]+|--tdd[a-z-]+", code):
                assert code in known, f"{code!r} in: {row}"


def test_headings_of_the_troubleshooting_page_are_texts_of_this_library() -> None:
    texts = [text for path in SOURCE.rglob("*.py") for text in text_constants(path)]
    page = prose(DOCS / "troubleshooting.md")
    for heading, after in re.findall(r"^#+ `(.+)`$\n+(.*)$", page, re.MULTILINE):
        if "says so" not in after:  # by pytest or PostgreSQL
            pattern = re.compile(".*".join(map(re.escape, heading.strip("… ").split("…"))), re.DOTALL)
            assert any(pattern.search(text) for text in texts), heading


def test_public_names_are_documented() -> None:
    """Whoever looks for a name finds it on a page."""
    words = set(re.findall(r"\w+", "\n".join(page.read_text(encoding="utf-8") for page in PAGES)))
    assert set(tdd_support.__all__) - words == set()
