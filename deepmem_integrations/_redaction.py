"""Passwords and keys in the URIs of stores, which no message, no log and no JSON of the command line repeats."""

import re
from collections.abc import Iterable
from urllib.parse import unquote

HIDDEN = "***"

_NAMED = re.compile(r"(?i)([\w-]*(?:pass|pwd|key|token|secret|sig|auth|cred)[\w-]*=)([^&#\s]+)")
_URI = re.compile(r"(?:--\w+=)?([A-Za-z][\w+-]*:\S+)")
_FOLDERS = frozenset(["deeplake", "chroma", "faiss", "qdrant"])
"""What comes before a colon and a folder. A letter alone is a drive of Windows."""
_LEAST = 3
"""Shorter parts of a password tell little, and stand in many a message by chance."""


def _login(uri: str) -> tuple[int, int]:
    """Return where the user and the password of a URI begin and end. A password may hold ``@``, ``/``, ``:`` and ``#``."""
    kind, _, place = uri.partition(":")
    if "@" not in place or ("://" not in uri and (kind in _FOLDERS or len(kind) == 1)):
        return 0, 0
    start = uri.find("//") + 2 if "//" in uri else len(kind) + 1
    end = uri.rfind("@")
    query = re.search(r"\?[^@/]*=", uri[start:])  # an @ behind the question mark belongs to a value
    if query and "@" in uri[start : start + query.start()]:
        end = uri.rfind("@", start, start + query.start())
    return (start, end) if end > start else (0, 0)


def redacted(uri: str) -> str:
    """Return a URI without its user, password and keys.

    Example:
        >>> redacted("pgvector:postgresql+psycopg://me:p@ss@host/db?password=x#docs")
        'pgvector:postgresql+psycopg://***@host/db?password=***#docs'
    """
    start, end = _login(uri)
    shown = f"{uri[:start]}{HIDDEN}{uri[end:]}" if end else uri
    return _NAMED.sub(rf"\1{HIDDEN}", shown)


def redact(text: str, uri: str) -> str:
    """Return a text, such as the message of a driver, without the URI's user, password and keys, or parts of them.

    Example:
        >>> redact("no host 'word@host'", "pgvector:postgresql+psycopg://me:pass@word@host/db#docs")
        "no host '***@host'"
    """
    text = text.replace(uri, redacted(uri))
    start, end = _login(uri)
    login = uri[start:end]
    whole = [login, login.partition(":")[2], *(value for _, value in _NAMED.findall(uri))]
    parts = {part for one in whole for part in (one, unquote(one), *re.split(r"[@:/?#&]", one)) if len(part) >= _LEAST}
    parts -= {login.partition(":")[0]} if ":" in login else set()  # the user's name alone is no secret
    for part in sorted(parts, key=len, reverse=True):
        for form in (part, repr(part)[1:-1]):
            text = text.replace(form, HIDDEN)
    return text


def redact_all(text: str, arguments: Iterable[str]) -> str:
    """Return a text without the users, passwords and keys of every URI among some arguments of the command line."""
    for argument in arguments:
        if uri := _URI.fullmatch(argument):
            text = redact(text, uri[1])
    return text
