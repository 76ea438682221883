"""A diagnosis as a value, and its words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dataflow.testing.diagnosis.hiding import hidden
from dataflow.testing.errors import TDDError

Detail = str | int | float | bool | None | tuple[str, ...]


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"
    INFO = "info"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. What looks like a password is masked in all its texts.

    :param found: what was found, in words.
    :param cause: why it is so, likely; :param remedy: what to do; :param option: what to turn.
    :param details: figures and names behind it; times end in ``_ms`` or ``_s``.
    """

    name: str
    status: Status
    found: str
    remedy: str | None = None
    option: str | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)
    cause: str | None = None

    def __post_init__(self) -> None:
        for name in ("found", "remedy", "option", "cause"):
            text = getattr(self, name)
            if text is not None:
                object.__setattr__(self, name, hidden(text))
        object.__setattr__(self, "details", {name: _hidden(value) for name, value in self.details.items()})

    def to_plain(self) -> dict[str, Any]:
        """The check as plain data, with all keys always there."""
        return {
            "name": self.name,
            "status": self.status.value,
            "found": self.found,
            "cause": self.cause,
            "remedy": self.remedy,
            "option": self.option,
            "details": {k: list(v) if isinstance(v, tuple) else v for k, v in self.details.items()},
        }


@dataclass(frozen=True)
class Diagnosis:
    """The answer to one question. ``str()`` is the text for people, ``bool()`` whether nothing failed."""

    title: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status is Status.FAILED)

    def __bool__(self) -> bool:
        return not self.failed

    def __str__(self) -> str:
        return "\n".join([self.title, *(line for check in self.checks for line in _check_lines(check))])

    def to_plain(self) -> dict[str, Any]:
        """The diagnosis as plain data, for JSON."""
        return {"title": self.title, "ok": bool(self), "checks": [check.to_plain() for check in self.checks]}


def failure(
    name: str,
    error: BaseException,
    details: Mapping[str, Detail] | None = None,
    secret: str | None = None,
) -> Check:
    """The check that `error` made impossible, with the error's own way out if it has one.

    :param secret: a password that a driver's own words may repeat; our errors never do.
    """
    if isinstance(error, TDDError):
        return Check(
            name, Status.FAILED, error.what, error.remedy, error.option, details or {}, cause=error.cause
        )
    if isinstance(error, ModuleNotFoundError):
        found = f"the Python package {error.name} is not installed in this environment"
        return Check(name, Status.FAILED, found, "pip install dataflow-tdd brings it", details=details or {})
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    remedy = "this is not expected; report it together with the text of `dataflow-tdd doctor`"
    return Check(name, Status.FAILED, hidden(said, secret), remedy, details=details or {})


def ok(name: str, found: str, **details: Detail) -> Check:
    return Check(name, Status.OK, found, details=details)


def info(name: str, found: str, **details: Detail) -> Check:
    return Check(name, Status.INFO, found, details=details)


def skipped(name: str, found: str) -> Check:
    return Check(name, Status.SKIPPED, found)


_INDENT = " " * 12


def _check_lines(check: Check) -> Iterator[str]:
    found = check.found.replace("\n", f"\n{_INDENT}")
    yield f"  {f'[{check.status}]':<9} {check.name}: {found}"
    parts = (("likely cause", check.cause), ("way out", check.remedy), ("option", check.option))
    yield from (f"{_INDENT}{name}: {text}" for name, text in parts if text)
    for name, value in check.details.items():
        yield from _detail_lines(name, value)


def _detail_lines(name: str, value: Detail) -> Iterator[str]:
    if isinstance(value, tuple):
        if value:
            yield f"{_INDENT}{name}:"
        yield from (f"{_INDENT}  - {item}" for item in value)
    else:
        yield f"{_INDENT}{name}: {_shown(value)}"


def _shown(value: Detail) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    return "unknown" if value is None else str(value)


def _hidden(value: Detail) -> Detail:
    if isinstance(value, str):
        return hidden(value)
    return tuple(hidden(item) for item in value) if isinstance(value, tuple) else value
