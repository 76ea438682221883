"""What is said when the library of a data layer is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dataflow.testing.errors import MissingLibrary


@contextmanager
def importing(library: str, extra: str | None = None) -> Iterator[None]:
    """Around the imports of a library.

    :param extra: of ours that brings it along, if that is not called as the library is.
    :raises MissingLibrary: it cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingLibrary(
            f"{library} cannot be imported: {error}",
            cause="it is not installed for the Python of the tests: only an extra brings it along",
            remedy=f'pip install "dataflow-tdd[{extra or library}]"',
        ) from error
