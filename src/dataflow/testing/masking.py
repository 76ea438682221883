"""Keeping passwords out of everything that a person or a log may see."""

from __future__ import annotations

import re

MASK = "***"

_URL_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/?#:@]*:)[^\s]*(?=@)", re.IGNORECASE)
_KEY_PASSWORD = re.compile(
    r"(?P<before>\b(?:pgpassword|sslpassword|password|passwd|pwd)[\"']?\s*(?:[=:]|%3D)\s*)"
    r"(?:\*\*\*|'(?:[^'\\]|\\.)*'|\"[^\"]*\"|[^\s&;,'\"]+)",
    re.IGNORECASE,
)
# SQL: CREATE ROLE … PASSWORD 'secret'; within a text, as EXECUTE takes it, with its quotes doubled.
_SQL_PASSWORD = re.compile(
    r"(?P<before>\bpassword(?:\s|/\*(?:[^*]|\*(?!/))*\*/)+)(?:''[^']+''|(?:e|u&)?'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)",
    re.IGNORECASE | re.DOTALL,
)
_SECRET_NAME = re.compile(r"passw|pwd|secret|token", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a parameter or variable of this name holds something that nobody should see."""
    return _SECRET_NAME.search(name) is not None


def mask(text: str, *secrets: str | None) -> str:
    """Return `text` without passwords: those of URLs, of ``password=…`` pairs, and each of `secrets`."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        # Whole words only: masking "test" inside "dataflow_test" would hide nothing and tell the password.
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    text = _URL_PASSWORD.sub(rf"\g<before>{MASK}", text)
    text = _SQL_PASSWORD.sub(rf"\g<before>'{MASK}'", text)
    return _KEY_PASSWORD.sub(rf"\g<before>{MASK}", text)
