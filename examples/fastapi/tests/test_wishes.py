"""What was wished for is counted: by routes that are plain functions, which FastAPI runs in threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meetings.models import Wish

if TYPE_CHECKING:
    from fastapi.testclient import TestClient
    from sqlalchemy.orm import Session


def test_wishes_are_counted(plain_client: TestClient, tdd_session: Session) -> None:
    tdd_session.add_all(Wish(room=room, who="Ann", days=1) for room in ("Hall", "Attic", "Hall"))
    tdd_session.commit()
    assert plain_client.get("/wishes").json() == {"Attic": 1, "Hall": 2}


def test_wishes_are_forgotten(plain_client: TestClient, tdd_session: Session) -> None:
    tdd_session.add(Wish(room="Hall", who="Ann", days=1))
    tdd_session.commit()
    assert plain_client.delete("/wishes").json() == 1
    assert plain_client.delete("/wishes").json() == 0
    assert plain_client.get("/wishes").json() == {}


def test_the_next_test_finds_none(plain_client: TestClient) -> None:
    assert plain_client.get("/wishes").json() == {}
