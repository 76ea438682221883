"""A function as a schema: how it is found, what it gets, and when its template is stale."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow.testing.dsn import Dsn
from dataflow.testing.errors import SchemaFailed
from dataflow.testing.template.function import PythonFunction

DSN = Dsn("h", 1, "u", "s3cret", "d")
LIMIT_S = 20.0


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A root directory that Python does not know, with a package of a name that is not yet taken."""
    package = tmp_path / "schema_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "make.py").write_text(
        "class Maker:\n    def make(self, url): ...\n\nmaker = Maker()\nnumber = 3\n\ndef make(url): ...\n"
    )
    (package / "broken.py").write_text("raise RuntimeError('on import')")
    (package / "needs.py").write_text("import no_such_module_anywhere")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("schema_of_a_test")]:
        del sys.modules[name]


def named(project: Path, text: str) -> PythonFunction:
    return PythonFunction(text, rootdir=project)


@pytest.mark.parametrize("text", ["schema_of_a_test.make:make", "schema_of_a_test.make:maker.make"])
def test_a_name_is_found_below_the_root_which_is_on_the_path_only_meanwhile(project: Path, text: str) -> None:
    before = list(sys.path)
    function = named(project, text)
    assert function.fingerprint()
    assert function.describe() == text
    assert sys.path == before
    function.apply(DSN, LIMIT_S)


def test_the_root_is_no_part_of_the_path_for_what_python_finds_anyway(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError")
    assert named(tmp_path, "json:loads").fingerprint()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema_of_a_test.make", "does not say where the function is"),
        (":make", "does not say where the function is"),
        ("schema_of_a_test.make:nothing", "schema_of_a_test.make has no nothing"),
        ("schema_of_a_test.make:number", "is no function but a int"),
        ("schema_of_a_test.nothing:make", "No module named 'schema_of_a_test.nothing'"),
        ("schema_of_a_test.broken:make", "RuntimeError: on import"),
        ("schema_of_a_test.needs:make", "No module named 'no_such_module_anywhere'"),
    ],
)
def test_a_name_of_no_function_is_a_clear_error(project: Path, text: str, said: str) -> None:
    before = list(sys.path)
    with pytest.raises(SchemaFailed) as raised:
        named(project, text).fingerprint()
    assert said in raised.value.what
    assert raised.value.remedy
    assert sys.path == before


def test_without_a_root_only_pythons_own_path_counts(project: Path) -> None:
    with pytest.raises(SchemaFailed, match="No module named 'schema_of_a_test'"):
        PythonFunction("schema_of_a_test.make:make").fingerprint()


def test_the_fingerprint_follows_the_module_the_name_and_the_files(project: Path) -> None:
    data = project / "seeds"
    data.mkdir()
    (data / "1.csv").write_text("1")

    def printed(text: str = "schema_of_a_test.make:make") -> str:
        return PythonFunction(text, [data], project).fingerprint()

    prints = [printed(), printed("schema_of_a_test.make:maker.make")]
    (data / "1.csv").write_text("2")
    prints.append(printed())
    (data / "1.csv").rename(data / "2.csv")
    prints.append(printed())
    module = project / "schema_of_a_test" / "make.py"
    module.write_text(module.read_text() + "# changed")
    prints.append(printed())
    assert len(set(prints)) == len(prints)
    assert printed() == prints[-1]


def decorated(function):
    @functools.wraps(function)
    def wrapper(*arguments, **named):
        return function(*arguments, **named)

    return wrapper


@decorated
def make(url, more=None): ...


class Callable:
    def __call__(self, url): ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (make, "make"),
        (functools.partial(make, more=1), "make"),
        (Callable(), "Callable"),
        (Callable().__call__, "Callable.__call__"),
    ],
)
def test_functions_in_all_their_forms(function: object, name: str) -> None:
    source = PythonFunction(function)
    assert source.describe() == f"{__name__}:{name}"
    assert source.fingerprint()
    source.apply(DSN, LIMIT_S)


def test_one_without_source_cannot_tell_when_it_is_stale() -> None:
    space: dict = {"__name__": "typed"}
    exec("def typed(url): ...", space)
    with pytest.raises(SchemaFailed, match="typed:typed has no source") as raised:
        PythonFunction(space["typed"]).fingerprint()
    assert raised.value.remedy == "put it into a module"


@pytest.mark.parametrize("parameter", ["url", "database_url"])
def test_parameters_that_ask_for_the_url_get_it(parameter: str) -> None:
    got: list[object] = []
    space = {"got": got}
    exec(
        f"def sync({parameter}): got.append({parameter})\nasync def later({parameter}): got.append({parameter})",
        space,
    )
    PythonFunction(space["sync"]).apply(DSN, LIMIT_S)
    PythonFunction(space["later"]).apply(DSN, LIMIT_S)
    assert got == [DSN.url()] * 2


def test_a_function_that_gives_back_something_to_wait_for_is_waited_for() -> None:
    done: list[str] = []

    async def later(url: str) -> None:
        done.append(url)

    PythonFunction(lambda url: later(url)).apply(DSN, LIMIT_S)
    assert done == [DSN.url()]


def test_what_it_raises_is_told_and_chained() -> None:
    def fails(url: str) -> None:
        raise ValueError(f"bad thing at {url}")

    with pytest.raises(SchemaFailed) as raised:
        PythonFunction(fails).apply(DSN, LIMIT_S)
    assert "fails raised ValueError: bad thing at postgresql://u:***@h:1/d" in raised.value.what
    first = fails.__code__.co_firstlineno
    lines = raised.value.what.splitlines()[1:]
    assert [line.partition(": ")[0].rpartition("/")[2] for line in lines] == [
        f"test_function.py:{first + 1}, in fails"
    ]
    assert isinstance(raised.value.__cause__, ValueError)
    assert raised.value.__cause__.__traceback__ is not None


def test_a_failure_within_a_library_is_told_with_the_line_that_called_it() -> None:
    def fails(url: str) -> None:
        json.loads("[")

    with pytest.raises(SchemaFailed) as raised:
        PythonFunction(fails).apply(DSN, LIMIT_S)
    _, own = raised.value.what.splitlines()
    assert own.endswith(': json.loads("[")')


@pytest.mark.parametrize("status", [0, 1])
def test_a_function_that_exits_does_not_end_the_tests(status: int) -> None:
    def exits(url: str) -> None:
        sys.exit(status)

    with pytest.raises(SchemaFailed, match=f"raised SystemExit: {status}"):
        PythonFunction(exits).apply(DSN, LIMIT_S)


def test_one_without_parameters_is_told_about_them() -> None:
    with pytest.raises(SchemaFailed, match="takes no argument") as raised:
        PythonFunction(lambda: None).apply(DSN, LIMIT_S)
    assert "url" in (raised.value.remedy or "")


@pytest.mark.asyncio
async def test_it_may_run_a_loop_of_its_own_while_the_caller_is_in_one() -> None:
    loops: list[object] = []

    async def later() -> None:
        loops.append(asyncio.get_running_loop())

    def runs(url: str) -> None:
        asyncio.run(later())

    async def runs_async(url: str) -> None:
        await later()

    PythonFunction(runs).apply(DSN, LIMIT_S)
    PythonFunction(runs_async).apply(DSN, LIMIT_S)
    assert len({*loops, asyncio.get_running_loop()}) == 3


def test_an_async_one_is_cancelled_at_its_limit() -> None:
    seen: list[str] = []

    async def hangs(url: str) -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(SchemaFailed, match=r"within 0.2 s: .*hangs had not returned by then"):
        PythonFunction(hangs).apply(DSN, 0.2)
    assert seen == ["cancelled"]


def test_its_own_timeouts_are_its_own() -> None:
    async def impatient(url: str) -> None:
        raise TimeoutError("mine")

    with pytest.raises(SchemaFailed, match="raised TimeoutError: mine"):
        PythonFunction(impatient).apply(DSN, LIMIT_S)
