"""Messages to the rest of the world, written by triggers and sent from here."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .database import Connection


@dataclass(frozen=True)
class Message:
    topic: str
    payload: dict[str, Any]


Send = Callable[[Message], Awaitable[None]]


async def dispatch(connection: Connection, send: Send, *, limit: int = 100) -> int:
    """Send what is waiting and return how many went out. A message that fails waits for the next call.

    Any number of processes may do this at once: each passes over what another one is sending. When one dies,
    its messages may go out twice.
    """
    sent = 0
    async with connection.transaction():
        waiting = await connection.fetch(
            """
            SELECT id, topic, payload FROM outbox WHERE sent_at IS NULL
            ORDER BY failures, id LIMIT $1 FOR UPDATE SKIP LOCKED
            """,
            limit,
        )
        for row in waiting:
            try:
                await send(Message(row["topic"], json.loads(row["payload"])))
            except OSError:
                await connection.execute("UPDATE outbox SET failures = failures + 1 WHERE id = $1", row["id"])
            else:
                await connection.execute("UPDATE outbox SET sent_at = now() WHERE id = $1", row["id"])
                sent += 1
    return sent
