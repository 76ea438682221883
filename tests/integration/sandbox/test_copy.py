"""COPY as raw messages, in orders that libraries do not use: on a plain connection and in the sandbox."""

from __future__ import annotations

import pytest
from tests.integration.sandbox.conftest import Box
from tests.integration.sandbox.raw import Raw

from dataflow.testing.dsn import Dsn
from dataflow.testing.sandbox import wire

START = wire.query("COPY t FROM STDIN")
ROWS = wire.message(b"d", b"50\tx\n") + wire.message(b"c")


def test_it_may_be_prepared_before(dsn: Dsn, box: Box) -> None:
    execute = wire.bind(b"", b"c") + wire.execute(b"") + wire.SYNC
    said = []
    for address in (dsn, box.dsn):
        raw = Raw(address)
        raw.say(wire.parse(b"c", "COPY t FROM STDIN") + wire.SYNC)
        told = raw.heard(b"Z", 1)
        for _ in range(2):
            raw.say(execute)
            told += raw.heard(b"G", 1)
            raw.say(ROWS + wire.SYNC)
            told += raw.heard(b"Z", 1)
            raw.say(wire.query("DELETE FROM t WHERE id = 50"))
            told += raw.heard(b"Z", 1)
        said.append(told)
        raw.close()
    assert said[0] == said[1]


@pytest.mark.parametrize("behind", [wire.SYNC, wire.query("SELECT 1")], ids=["Sync", "Query"])
def test_something_may_be_sent_together_with_its_end(dsn: Dsn, box: Box, behind: bytes) -> None:
    said = []
    for address in (dsn, box.dsn):
        raw = Raw(address)
        raw.say(START)
        told = raw.heard(b"G", 1)
        raw.say(ROWS + behind)
        told += raw.heard(b"Z", 2)
        raw.say(wire.query("DELETE FROM t WHERE id = 50"))
        said.append(told + raw.heard(b"Z", 1))
        raw.close()
    assert said[0] == said[1]
