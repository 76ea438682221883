"""The user's own modules that a module imports, as its source says: a change of theirs may change the schema."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from dataflow.testing.template.importing import is_users
from dataflow.testing.template.inputs import Input, read


def imported(module: str, path: Path) -> tuple[Input, ...]:
    """Names and files of all that `module` imports, and that these import, at whatever place in them.

    Installed packages and Python's own library are left out. What cannot be found is no error here.

    :param path: the source of `module`.
    """
    return all_imported([(module, path)])


def all_imported(modules: Iterable[tuple[str, Path]]) -> tuple[Input, ...]:
    """As `imported`, of several together."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    begun = {name for name, _ in waiting}
    while waiting:
        name, file = waiting.pop()
        for other in _names(file, _package(name, file)):
            if other not in found and other not in begun and (source := _source(other)) is not None:
                found[other] = source
                waiting.append((other, source))
    return tuple(Input(name, found[name]) for name in sorted(found))


def _names(file: Path, package: str) -> Iterator[str]:
    """The modules that may be meant, with the packages that they are in."""
    with suppress(SyntaxError, ValueError):
        for node in ast.walk(ast.parse(read(file))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from _with_parents(alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(node, package)
                yield from _with_parents(base)
                # What is imported from a package may be a module, or a name in it.
                yield from (f"{base}.{alias.name}" for alias in node.names if base)


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    with suppress(ImportError):
        return importlib.util.resolve_name("." * node.level + (node.module or ""), package)
    return ""


def _package(name: str, file: Path) -> str:
    return name if file.name == "__init__.py" else name.rpartition(".")[0]


def _source(name: str) -> Path | None:
    """The file of a module of the user's, wherever it is imported from."""
    top = _file(name.partition(".")[0])
    if top is not None and not is_users(top):
        return None
    path = _file(name)
    return path if path is not None and path.suffix == ".py" and is_users(path) else None


def _file(name: str) -> Path | None:
    module: ModuleType | None = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    # Looking for one that was not imported yet imports the packages that it is in; these are the user's, too.
    with suppress(Exception):
        if module is None and (spec := importlib.util.find_spec(name)) is not None and spec.has_location:
            file = spec.origin
    return Path(file) if file else None
