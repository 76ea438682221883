"""A function's own project: which of its modules count, and that a change of any is noticed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow.testing.template.function import PythonFunction

FILES = {
    "shop_db.py": (
        "import json, pytest\n"
        "import shop.settings\n"
        "from shop import models, NAME\n\n"
        "def create_all(url):\n    from shop.late import seed\n    return models, seed, NAME\n"
    ),
    "shop/__init__.py": "NAME = 'shop'\n",
    "shop/settings.py": "",
    "shop/models.py": "from .columns.text import Text\nfrom . import mixins\n",
    "shop/mixins.py": "",
    "shop/columns/__init__.py": "",
    "shop/columns/text.py": "Text = str\n",
    "shop/late.py": "seed = 1\n",
    "shop/other.py": "",
}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shop", "shop_db")]:
        del sys.modules[name]


def fingerprint(project: Path) -> str:
    return PythonFunction("shop_db:create_all", rootdir=project).fingerprint()


@pytest.mark.parametrize("name", [name for name in FILES if name != "shop/other.py"])
def test_a_change_of_what_it_imports_is_noticed_at_whatever_depth(project: Path, name: str) -> None:
    before = fingerprint(project)
    (project / name).write_text((project / name).read_text() + "# changed\n")
    assert fingerprint(project) != before


def test_what_nobody_imports_does_not_count(project: Path) -> None:
    before = fingerprint(project)
    (project / "shop/other.py").write_text("# changed\n")
    assert fingerprint(project) == before


def test_it_is_the_same_in_each_checkout(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = fingerprint(project)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shop", "shop_db")]:
        del sys.modules[name]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name, text in FILES.items():
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).write_text(text)
    assert fingerprint(elsewhere) == before


def test_a_module_that_is_not_there_or_no_python_is_no_error(project: Path) -> None:
    """It may be imported within a `try`."""
    (project / "shop/late.py").write_text("try:\n    import no_such_module\nexcept ImportError:\n    pass\n")
    assert fingerprint(project)
    (project / "shop/late.py").write_text("no Python\n")
    assert fingerprint(project)
