"""The files that a schema is made from: finding them, and their fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dataflow.testing.errors import SchemaFailed

_GLOB = frozenset("*?[")
# Programs write there whenever they run.
_IGNORED = "__pycache__"


class Input(NamedTuple):
    """:param name: below what was named, so that it is the same in every checkout. :param path: where it is."""

    name: str
    path: Path


def inputs(named: Sequence[Path], suffix: str = "") -> tuple[Input, ...]:
    """The files that `named` stands for, in its order: files, folders (with all that is in them), patterns.

    What is in a folder, or fits a pattern, comes sorted by path, part by part.

    :param suffix: take only these from folders, such as ".sql".
    :raises SchemaFailed: some are missing, or hold no such file; all of those are listed.
    """
    missing: list[str] = []
    found: list[Input] = []
    for path in named:
        here = _found(path, suffix)
        found += here
        if not here:
            missing.append(f"{shown(path)} {_why_nothing(path, suffix)}")
    if missing:
        raise SchemaFailed(
            "the schema cannot be built from files that are not there:"
            + "".join(f"\n    - {line}" for line in missing),
            cause="the path is misspelt, or relative to another directory than you think",
            remedy="correct it; an absolute path is the same from everywhere",
        )
    return tuple(found)


def describe(named: Iterable[Path], suffix: str = "") -> str:
    """``schema.sql, seeds/ (3 files)``. Never fails."""
    return ", ".join(_described(path, suffix) for path in named)


def shown(path: Path) -> str:
    """A path for people: relative where it lies below the current directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def fingerprint(kind: str, *parts: bytes) -> str:
    """A hex digest of `parts`, in their order; what is in one of them cannot be taken for two.

    :param kind: keeps sources of different kinds apart.
    """
    digest = hashlib.sha256()
    for part in (kind.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def contents(files: Iterable[Input]) -> tuple[bytes, ...]:
    """The bytes of each file."""
    return tuple(read(file.path) for file in files)


def named_contents(files: Iterable[Input]) -> tuple[bytes, ...]:
    """Name and bytes of each file, for programs to which its name means something."""
    return tuple(part for file in files for part in (file.name.encode(), read(file.path)))


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SchemaFailed(
            f"{shown(path)} cannot be read: {error.strerror}",
            cause="it was removed just now, or belongs to somebody else",
            remedy=f"look at it: ls -l {path}",
        ) from error


def _found(path: Path, suffix: str) -> tuple[Input, ...]:
    if path.is_file():
        return (Input(path.name, path),)
    if path.is_dir():
        return _below(path, path.rglob(f"*{suffix}"))
    pattern = _pattern(path)
    if pattern is None:
        return ()
    folder, hits = pattern[0], pattern[0].glob(pattern[1])
    return _below(folder, {file.path for hit in hits for file in _found(hit, suffix)})


def _below(folder: Path, hits: Iterable[Path]) -> tuple[Input, ...]:
    below = sorted((hit.relative_to(folder).parts, hit) for hit in hits if hit.is_file())
    return tuple(Input("/".join(parts), hit) for parts, hit in below if _IGNORED not in parts)


def _pattern(path: Path) -> tuple[Path, str] | None:
    """A path with wildcards as the folder in front of them, and the rest."""
    for index, part in enumerate(path.parts):
        if _GLOB & set(part):
            return Path(*path.parts[:index]), "/".join(path.parts[index:])
    return None


def _why_nothing(path: Path, suffix: str) -> str:
    if path.is_dir():
        return f"has no {suffix} file in it" if suffix else "is an empty folder"
    if _pattern(path):
        return "fits no file"
    return "does not exist" + ("; several are separated by commas" if " " in path.name else "")


def _described(path: Path, suffix: str) -> str:
    if not path.is_dir():
        return path.name
    count = len(_found(path, suffix))
    return f"{path.name}/ ({count} file{'s' if count != 1 else ''})"
