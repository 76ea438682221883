"""Messages survive being cut anywhere, and an error arrives as the class it was."""

from __future__ import annotations

import pytest

from dataflow.testing.errors import ServerError, ServerInUse
from dataflow.testing.server import protocol
from dataflow.testing.server.protocol import KeeperConfig, Lines, ServerStatus, State, User


def test_messages_are_found_wherever_the_stream_is_cut() -> None:
    sent = [{"do": "lease", "what": "a\nb"}, {"do": "status"}]
    stream = b"".join(protocol.encode(message) for message in sent)
    for cut in range(len(stream)):
        lines = Lines()
        assert lines.feed(stream[:cut]) + lines.feed(stream[cut:]) == sent


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n", b"[1]\n", b"\xff\xfe\n", b"x" * 70_000])
def test_what_is_no_message_is_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError):
        Lines().feed(garbage)


def test_an_error_arrives_with_its_class_and_all_its_parts() -> None:
    error = ServerInUse("busy", cause="a run", remedy="wait", option="--force")
    with pytest.raises(ServerInUse) as raised:
        protocol.result(protocol.failure(error))
    assert str(raised.value) == str(error)


def test_an_error_of_an_unknown_class_is_still_a_server_error() -> None:
    with pytest.raises(ServerError, match="odd"):
        protocol.result({"error": {"kind": "SystemExit", "what": "odd"}})


def test_state_configuration_and_status_survive_the_way() -> None:
    state = State(("tcp", "127.0.0.1", 7), "token", 1, "/s")
    config = KeeperConfig("/r", "k", "/b", "p", port=5433, pinned=True)
    status = ServerStatus(
        "/s", 5432, None, "18.6", "p", "/d", 1, 2.0, None, None, False, (User(1, "x", "/", 3.0, "d"),)
    )
    assert State.load(state.dump()) == state
    assert KeeperConfig.load(config.dump()) == config
    (message,) = Lines().feed(protocol.encode(protocol.ok(**status.dump())))
    assert ServerStatus.load(protocol.result(message)) == status
