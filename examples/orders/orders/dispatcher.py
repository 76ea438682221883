"""A program that sends the messages of the outbox as soon as they are committed.

``python -m orders.dispatcher`` finds its database in DATABASE_URL, writes a line of JSON for each message, and
ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal

import asyncpg

from .outbox import Message, dispatch

# Somebody else may have locked what was announced: then it is looked at again without being told.
LOOK_AGAIN_S = 1.0


async def run(url: str, stop: asyncio.Event) -> None:
    connection = await asyncpg.connect(url)
    woken = asyncio.Event()
    try:
        await connection.add_listener("outbox", lambda *_: woken.set())
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            woken.clear()
            while await dispatch(connection, _write):
                pass
            wake = asyncio.create_task(woken.wait())
            await asyncio.wait({wake, stopping}, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
            wake.cancel()
    finally:
        await connection.close()


async def _write(message: Message) -> None:
    print(json.dumps({"topic": message.topic, **message.payload}), flush=True)  # noqa: T201


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(os.environ["DATABASE_URL"], stop)


if __name__ == "__main__":
    asyncio.run(main())
