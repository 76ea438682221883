"""Directories that several processes make at the same instant."""

from __future__ import annotations

import threading
from pathlib import Path

from dataflow.testing.server.files import make_directory


def test_all_who_make_a_directory_at_once_have_it(tmp_path: Path) -> None:
    """Workers that begin together on a machine where nothing was ever started."""
    failures: list[OSError] = []
    together = threading.Barrier(6)

    def make(path: Path) -> None:
        together.wait(20)
        try:
            make_directory(path, 0o700)
        except OSError as error:
            failures.append(error)

    for number in range(100):
        path = tmp_path / str(number) / "servers" / "key"
        threads = [threading.Thread(target=make, args=(path,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert path.stat().st_mode & 0o777 == 0o700
    assert failures == []
