"""What may be shown of an address or a variable. Pure; the passwords themselves are never looked at."""

from __future__ import annotations

import re

from dataflow.testing.dsn import Dsn
from dataflow.testing.masking import MASK, is_secret_name, mask

UNREADABLE = "set, but not shown: it cannot be read, and may hold a password"

# Parameters of a URL such as sslpassword, which `mask` does not know.
_SECRET_PARAMETER = re.compile(r"(?P<before>\b\w*(?:passw|pwd|secret|token)\w*=)[^\s&]+", re.IGNORECASE)


def hidden(text: str, *secrets: str | None) -> str:
    """`text` without what looks like a password, and without each of `secrets`."""
    return _SECRET_PARAMETER.sub(rf"\g<before>{MASK}", mask(text, *secrets))


def shown_url(url: str) -> str:
    """A URL without its password; when in doubt, nothing of it."""
    try:
        return hidden(str(Dsn.parse(url)))
    except ValueError:
        return UNREADABLE


def shown_variable(name: str, value: str) -> str:
    """The value of an environment variable as far as it may be shown."""
    if name.endswith("_URL"):
        return shown_url(value) if value else ""
    return MASK if value and is_secret_name(name) else hidden(value)
