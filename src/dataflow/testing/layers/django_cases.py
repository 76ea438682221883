"""`TransactionTestCase` with databases of its own: it gets them before it begins, and leaves them as they are.

pytest-django's fixtures, live servers and asynchronous tests are all made from that class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Lending(Protocol):
    """Who has the databases."""

    def begin(self, case: Any) -> None: ...

    def end(self) -> None: ...

    def lends(self, alias: str) -> bool: ...

    def watch(self) -> None: ...

    def judge(self, case: Any) -> None: ...


@contextmanager
def patched_cases(databases: Lending) -> Iterator[None]:
    """Django has no other place for this: five methods of one class, as long as it lasts."""
    from django.test import SimpleTestCase, TransactionTestCase

    names = ("setUpClass", "_pre_setup", "_fixture_teardown", "_post_teardown", "_reset_sequences")
    own = {name: vars(TransactionTestCase)[name] for name in names if name in vars(TransactionTestCase)}
    before = {name: own.get(name) or vars(SimpleTestCase)[name] for name in names}
    for name, method in _methods(databases, before).items():
        setattr(TransactionTestCase, name, method)
    try:
        yield
    finally:
        for name in names:
            if name in own:
                setattr(TransactionTestCase, name, own[name])
            else:
                delattr(TransactionTestCase, name)


def _methods(databases: Lending, before: dict[str, Any]) -> dict[str, Any]:
    from django.test import TestCase

    def set_up_class(cls: Any) -> None:
        databases.end()  # since Django 5.2 a class begins its first test, which may not have run
        before["setUpClass"].__get__(None, cls)()

    def pre_setup(case: Any) -> None:
        cls = case if isinstance(case, type) else type(case)
        if not issubclass(cls, TestCase):
            databases.begin(cls)
        before["_pre_setup"].__get__(None if case is cls else case, cls)()
        if issubclass(cls, TestCase):
            databases.watch()

    def post_teardown(case: Any) -> None:
        __tracebackhide__ = True
        try:
            before["_post_teardown"](case)
        finally:
            if not isinstance(case, TestCase):
                databases.end()
        if isinstance(case, TestCase):
            databases.judge(case)

    is_classmethod = isinstance(before["_pre_setup"], classmethod)  # since Django 5.2
    return {
        "setUpClass": classmethod(set_up_class),
        "_pre_setup": classmethod(pre_setup) if is_classmethod else pre_setup,
        "_post_teardown": post_teardown,
        **_methods_that_undo(databases, before),
    }


def _methods_that_undo(databases: Lending, before: dict[str, Any]) -> dict[str, Any]:
    def fixture_teardown(case: Any) -> None:
        """No flush of databases that are put back."""
        names = case._databases_names(include_mirrors=False)
        flushed = [alias for alias in names if not databases.lends(alias)]
        if flushed == names:
            before["_fixture_teardown"](case)
        elif flushed:
            case._databases_names = lambda **_: flushed
            try:
                before["_fixture_teardown"](case)
            finally:
                del case._databases_names

    def reset_sequences(alias: str) -> None:
        """They are as the migrations left them; set to 1 they would give ids that seed rows have."""
        if not databases.lends(alias):
            before["_reset_sequences"].__func__(alias)

    return {"_fixture_teardown": fixture_teardown, "_reset_sequences": staticmethod(reset_sequences)}
