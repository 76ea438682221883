"""What is said when the library of a data layer is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dataflow.testing.errors import MissingLibrary


@contextmanager
def importing(library: str) -> Iterator[None]:
    """Around the imports of a library. :param library: as it is called, and our extra with it.

    :raises MissingLibrary: it cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingLibrary(
            f"{library} cannot be imported: {error}",
            cause="it is not installed for the Python of the tests: only the extra of its name brings it along",
            remedy=f'pip install "dataflow-tdd[{library}]"',
        ) from error
