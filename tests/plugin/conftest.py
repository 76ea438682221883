"""Inner pytest runs: projects as their users write them, in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import dedent

import psycopg
import pytest
from tests.ports import closed_port

from dataflow.testing.dsn import Dsn

# Order and cache would only make inner runs differ from each other.
PLAIN = ("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:rerunfailures", "-p", "no:xdist")
LIMIT_S = 60.0
# Other workers of the outer run make roles on the same server, which any test at work then may have made.
_OF_OTHERS = ("-W", "ignore::dataflow.testing.plugin.warnings.OutsideWarning")


def _errors() -> tuple[str, ...]:
    loaded = "PYTEST_DISABLE_PLUGIN_AUTOLOAD" not in os.environ
    return ("-W", "error", *(_OF_OTHERS if loaded else ()))


class Outcome:
    """How an inner run ended."""

    def __init__(self, result: pytest.RunResult) -> None:
        self.result = result
        self.text = result.stdout.str() + "\n" + result.stderr.str()

    def assert_outcomes(self, **expected: int) -> Outcome:
        """Exactly these numbers of passed, failed, errors, skipped, warnings … tests."""
        found = {name: count for name, count in self.result.parseoutcomes().items() if count}
        found["errors"] = found.pop("error", 0) + found.pop("errors", 0)
        found["warnings"] = found.pop("warning", 0) + found.pop("warnings", 0)
        assert {k: v for k, v in found.items() if v} == expected
        return self

    def assert_says(self, *words: str) -> Outcome:
        """Each text occurs, whatever the line breaks are."""
        flat = " ".join(self.text.split())
        for text in words:
            assert " ".join(text.split()) in flat, f"not said: {text}"
        return self

    def assert_silent_about(self, *words: str) -> Outcome:
        for text in words:
            assert text not in self.text
        return self

    def marked(self, name: str) -> list[str]:
        """What inner tests printed as ``<name>=value``; run them with ``-s``."""
        return [line.partition("=")[2] for line in self.text.splitlines() if line.startswith(f"{name}=")]


class Project:
    """An inner project, and how to run it."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.env = monkeypatch
        self.ini(asyncio_mode="auto")

    def ini(self, **options: str) -> None:
        """Replace pytest.ini; fixtures get function loops unless told otherwise."""
        options = {"asyncio_default_fixture_loop_scope": "function", **options}
        self.pytester.makeini("[pytest]\n" + "".join(f"{k} = {v}\n" for k, v in options.items()))

    def session_loops(self, **options: str) -> None:
        """With further options."""
        self.ini(
            asyncio_mode="auto",
            asyncio_default_fixture_loop_scope="session",
            asyncio_default_test_loop_scope="session",
            **options,
        )

    def database(self, url: str) -> None:
        """Name a server, as somebody does who does not want the embedded one."""
        self.env.delenv("DATAFLOW_TDD_SERVER", raising=False)
        self.env.setenv("TEST_DATABASE_URL", url)

    @contextmanager
    def nobody_at_the_default_address(self) -> Iterator[str]:
        """No server is named or asked for, and nothing answers at the default address, which is returned: not
        the real one, because nobody knows what answers there."""
        self.env.delenv("DATAFLOW_TDD_SERVER")
        with closed_port() as port:
            self.conftest(
                f"""
                from dataclasses import replace
                from dataflow.testing.server import choice

                choice.GUIDE_DSN = replace(choice.GUIDE_DSN, port={port})
                """
            )
            yield f"localhost:{port}"

    def conftest(self, text: str) -> None:
        self.pytester.makeconftest(dedent(text))

    def file(self, name: str, text: str) -> None:
        path = self.pytester.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    def run(
        self,
        tests: str | None = None,
        *arguments: str,
        plain: bool = True,
        warnings_are_errors: bool = True,
        limit_s: float = LIMIT_S,
    ) -> Outcome:
        """Run pytest with `tests` as its test file, in a process of its own."""
        if tests is not None:
            self.file("test_it.py", tests)
        given = (*(PLAIN if plain else ()), *(_errors() if warnings_are_errors else ()), *arguments)
        return Outcome(self.pytester.runpytest_subprocess(*given, timeout=limit_s))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)  # the outer run's; among them a worker's name
    return Project(pytester, monkeypatch)


@pytest.fixture
def ask(admin_dsn: Dsn) -> Iterator[Callable[[str], list[tuple[object, ...]]]]:
    """Ask the shared server, from outside of all tests."""
    with psycopg.connect(admin_dsn.url(), autocommit=True, connect_timeout=5) as connection:
        yield lambda query: connection.execute(query.encode()).fetchall()
