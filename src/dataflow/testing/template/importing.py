"""From ``package.module:name`` to the function, and from a function to its source."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from dataflow.testing.errors import SchemaFailed
from dataflow.testing.template.inputs import read

_OURS = Path(__file__).parents[1]
_INSTALLED = {"site-packages", "dist-packages"}


def find_function(text: str, rootdir: Path | None) -> Callable[..., Any]:
    """The function that `text` names. Its module is imported.

    :param rootdir: where the module is looked for if Python does not find it; it is on `sys.path` only meanwhile.
    :raises SchemaFailed: `text` names no function; `from` what the import raised, if it did.
    """
    module_name, _, path = text.partition(":")
    if not module_name or not path:
        raise SchemaFailed(
            f"{text!r} does not say where the function is that builds the schema",
            remedy="write package.module:name, such as shop.db:create_all",
        )
    found: object = _module(module_name, text, rootdir)
    for name in path.split("."):
        if not hasattr(found, name):
            raise SchemaFailed(
                f"{module_name} has no {path}, which {text!r} names as the function that builds the schema",
                cause=f"the name is misspelt, or another file of that name is imported: {_file_of(module_name)}",
                remedy="write package.module:name, such as shop.db:create_all",
            )
        found = getattr(found, name)
    if not callable(found):
        raise SchemaFailed(
            f"{text!r} is no function but a {type(found).__name__}",
            remedy="name a function whose first parameter is a connection, or is called url",
        )
    return found


def innermost(function: Callable[..., Any]) -> Any:
    """What is within decorators and partials: the thing that has a source."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)


def is_users(path: Path) -> bool:
    """Whether a source file is neither of this library, nor of Python's, nor installed."""
    others = (_OURS, Path(sysconfig.get_paths()["stdlib"]))
    installed = not _INSTALLED.isdisjoint(path.parts)
    return path.suffix == ".py" and not installed and not any(path.is_relative_to(other) for other in others)


def file_of(function: Callable[..., Any]) -> tuple[str, Path] | None:
    """Name and file of the module that a function is in."""
    subject = _subject(function)
    with suppress(TypeError, OSError):
        path = inspect.getsourcefile(subject)
        if path is not None and Path(path).is_file():
            return str(subject.__module__), Path(path)
    return None


def source_of(function: Callable[..., Any], name: str) -> bytes:
    """The whole file of the function's module: what it calls is mostly there. Where there is no file, its own
    source.

    :raises SchemaFailed: neither can be read.
    """
    subject = _subject(function)
    if (module := file_of(function)) is not None:
        return read(module[1])
    with suppress(TypeError, OSError):
        # Python takes the text of `python -c` for that of all code without a file.
        if inspect.getfile(subject) != "<string>":
            return inspect.getsource(subject).encode()
    raise SchemaFailed(
        f"{name} has no source that could be read, so nothing would tell when its template is stale",
        cause="it was typed into an interpreter, or is compiled",
        remedy="put it into a module",
    )


def _subject(function: Callable[..., Any]) -> Any:
    """What has a source: a function, a class, or the class of an object with a method __call__."""
    subject = innermost(function)
    return subject if inspect.isroutine(subject) or inspect.isclass(subject) else type(subject)


def _module(name: str, text: str, rootdir: Path | None) -> ModuleType:
    try:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if rootdir is None or not f"{name}.".startswith(f"{error.name}."):
                raise
        with on_path(rootdir):
            return importlib.import_module(name)
    except Exception as error:
        raise SchemaFailed(
            f"{name} cannot be imported, where {text!r} looks for the function that builds the schema: "
            f"{type(error).__name__}: {error}",
            cause="the name is misspelt, or the module is neither installed nor below the root directory"
            if isinstance(error, ModuleNotFoundError)
            else "the module, or what it imports, fails",
            remedy=f'python -c "import {name}" shows more',
        ) from error


@contextmanager
def on_path(directory: Path | None) -> Iterator[None]:
    """Modules are found there, too."""
    if directory is None:
        yield
        return
    importlib.invalidate_caches()
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(directory))


def _file_of(module_name: str) -> str:
    return str(getattr(sys.modules.get(module_name), "__file__", None) or module_name)
