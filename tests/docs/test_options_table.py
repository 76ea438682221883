"""The table of options in the README is what can really be set."""

from __future__ import annotations

from pathlib import Path

from dataflow.testing.options import OPTIONS, Option

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- options -->\n", "<!-- end of options -->"


def options_table() -> str:
    rows = [
        "| Environment | Flag of pytest | Ini file | Meaning | Default | Container | CI |",
        "|---|---|---|---|---|---|---|",
        *map(_row, OPTIONS),
    ]
    return "\n".join(rows) + "\n"


def _row(option: Option) -> str:
    values = " | ".join(_shown(value) for value in (option.default, option.container, option.ci))
    names = " | ".join(f"`{name}`" for name in (option.environment, option.flag, option.ini))
    return f"| {names} | {option.help} | {values} |"


def _shown(value: object) -> str:
    if value in (None, (), frozenset()):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_options_table_is_that_of_the_code() -> None:
    readme = README.read_text(encoding="utf-8")
    written = readme.partition(BEGIN)[2].partition(END)[0]
    assert written == options_table(), f"put this between the two comments of the README:\n{options_table()}"
