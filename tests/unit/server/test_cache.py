"""The cache directory must be ours, closed to others and within the server's reach."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from dataflow.testing.errors import ServerStartFailed
from dataflow.testing.server.cache import cache_root
from dataflow.testing.server.owner import Owner, may

_NOBODY = Owner("nobody", 65534, 65534)


def test_a_missing_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    root = cache_root(tmp_path / "a" / "b", None)
    assert root.is_dir()
    assert root.stat().st_mode & 0o777 == 0o700


def test_a_tight_umask_does_not_shut_the_servers_user_out() -> None:
    with tempfile.TemporaryDirectory(prefix="df-") as parent:
        Path(parent).chmod(0o755)
        before = os.umask(0o077)
        try:
            root = cache_root(Path(parent) / "cache", _NOBODY)
        finally:
            os.umask(before)
        assert root.stat().st_mode & 0o777 == 0o755


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ServerStartFailed, match="others may write to it") as raised:
        cache_root(tmp_path, None)
    assert raised.value.option == "DATAFLOW_TDD_CACHE_DIR"


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerStartFailed, match="not a directory"):
        cache_root(tmp_path / "file", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 65534, 65534)
    with pytest.raises(ServerStartFailed, match="belongs to user id 65534"):
        cache_root(foreign, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_laid_by_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "ours")
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(ServerStartFailed, match="link made by user id 65534"):
        cache_root(link, None)


def test_a_closed_parent_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "cache").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(ServerStartFailed, match="cannot pass through") as raised:
        cache_root(closed / "cache", Owner("nobody", 65533, 65533))
    assert "chmod o+x" in str(raised.value)


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "expected"),
    [(0o700, 65534, 0, True), (0o070, 1, 65534, True), (0o007, 1, 1, True), (0o077, 65534, 0, False)],
)
def test_permission_is_that_of_the_closest_class(
    tmp_path: Path, mode: int, uid: int, gid: int, expected: bool
) -> None:
    plain = tmp_path.stat()
    status = os.stat_result((mode, *plain[1:4], uid, gid, *plain[6:]))
    assert may(_NOBODY, status, 0o5) is expected
