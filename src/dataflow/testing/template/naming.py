"""Names of template databases, and the note that each carries as its comment. Pure."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import NamedTuple, Self

# Changed when what a template is, or what its note says, changes: then earlier ones are not used any more.
FORMAT = 1
TEMPLATE = "tdd_template_"
BUILDING = "tdd_building_"
_KEY_LENGTH = 16
_NAME = re.compile(rf"(?:{TEMPLATE}|{BUILDING})(?P<key>[0-9a-f]{{{_KEY_LENGTH}}})(?:_[0-9a-f]+)?")


def template_key(fingerprint: str, *, server_version: int, lock_space: str, owner: str) -> str:
    """What tells templates apart, in 16 hex digits.

    Encoding and locale are those of template0, the same for all of a server.

    :param server_version: `server_version_num`. :param lock_space: the maintenance database, in which locks are
        taken: whoever takes them elsewhere does not see ours, and must not meet our databases.
    :param owner: the role that owns what is in the template.
    """
    identity = json.dumps([FORMAT, server_version, lock_space, owner, fingerprint])
    return hashlib.sha256(identity.encode()).hexdigest()[:_KEY_LENGTH]


def template_name(key: str) -> str:
    return TEMPLATE + key


def building_name(key: str) -> str:
    """A name that nobody else knows: a migration tool that outlives its killed run must not find the database of
    the next builder under the name of its own."""
    return f"{BUILDING}{key}_{secrets.token_hex(4)}"


def key_of(name: str) -> str | None:
    """The key in the name of a template, finished or not; None for any other name."""
    found = _NAME.fullmatch(name)
    return found["key"] if found else None


class Note(NamedTuple):
    """What a template says of itself. Times are seconds since the epoch, by the server's clock.

    :param used: when a run last began to use it, to the minute. :param built: None while it is being built.
    :param no_crash_since: it has unlogged tables, which are empty after a crash of the server, and so it counts
        only while the last crash was then (`databases.last_crash`). None: it outlives any.
    """

    fingerprint: str
    description: str
    server_version: int
    lock_space: str
    used: float
    built: float | None = None
    built_ms: float | None = None
    no_crash_since: float | None = None

    def dump(self) -> str:
        return json.dumps({"format": FORMAT} | self._asdict())

    @classmethod
    def load(cls, comment: str | None) -> Self | None:
        """None when it is not a note of ours, or one of another format."""
        try:
            fields = json.loads(comment or "")
            if fields.pop("format") != FORMAT:
                return None
            note = cls(**fields)
            float(note.used)
        except (ValueError, TypeError, AttributeError, KeyError):
            return None
        return note
