"""Where things are, and that the kernel's limit for socket paths is known."""

from __future__ import annotations

from pathlib import Path

from dataflow.testing.server.layout import SOCKET_PATH_LIMIT, Layout, server_key, socket_fits


def test_key_changes_with_place_and_content_of_the_programs() -> None:
    keys = {
        server_key(Path("/a/bin"), 1, 1),
        server_key(Path("/b/bin"), 1, 1),
        server_key(Path("/a/bin"), 2, 1),
        server_key(Path("/a/bin"), 1, 2),
    }
    assert len(keys) == 4
    assert server_key(Path("/a/bin"), 1, 1) in keys


def test_a_server_with_a_port_shares_nothing_but_the_pristine_cluster() -> None:
    layout = Layout(Path("/c"))
    shared, own = layout.instance("k"), layout.instance("k", 5433)
    assert shared.directory != own.directory
    assert shared.directory.parent == own.directory.parent == layout.servers


def test_what_postgres_owns_is_apart_from_what_the_keeper_owns() -> None:
    instance = Layout(Path("/c")).instance("k")
    ours = {instance.state, instance.record, instance.keeper_lock, instance.start_lock, instance.keeper_socket}
    assert {path.parent for path in ours} == {instance.control}
    assert instance.control not in (instance.data, instance.sockets)


def test_socket_paths_up_to_the_limit_fit() -> None:
    name = len("/.s.PGSQL.5432")
    assert socket_fits(Path("/" + "x" * (SOCKET_PATH_LIMIT - name - 1)), 5432)
    assert not socket_fits(Path("/" + "x" * (SOCKET_PATH_LIMIT - name)), 5432)
    # Bytes count, not characters.
    assert not socket_fits(Path("/" + "é" * (SOCKET_PATH_LIMIT // 2)), 5432)
