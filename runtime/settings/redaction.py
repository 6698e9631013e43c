"""Removes secrets from values in messages. Pure.

Addresses lose user information, query and fragment; an invalid value of a setting is described instead of quoted.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

STARS: Final = "***"
# Each matches at the start of a word only: matching from every letter would take quadratic time on a long line.
_URL: Final = re.compile(r"(?<![\w+.:-])[\w+.:-]*://[^\s'\"<>]+")
_CREDENTIALS: Final = re.compile(r"(?<![^\s'\"/@:])[^\s'\"/@:]+:[^\s'\"@]+@")
_HOLDS_AN_AT: Final = re.compile(r"(?<![^\s'\"])[^\s'\"]*@")
_QUERY: Final = re.compile(r"\?[^\s'\"=/?]+=[^\s'\"]*")


def public_address(address: str) -> str:
    """Return an address without user information, query and fragment; a secret may contain a slash."""
    scheme, separator, rest = address.rpartition("://") if "://" in address else ("", "", address)
    rest = re.split("[?#]", rest, maxsplit=1)[0] if separator else rest
    user, at, host = rest.rpartition("@")
    # `bucket/team@home` names a folder; any other text before an @ may be a secret.
    kept = host if at and (":" in user or "/" not in user) else rest
    return _without_credentials(scheme.partition("?")[0]) + separator + kept


def redact_text(text: str) -> str:
    """Return a text of another source (a library's error, a log line) with the secrets of all its addresses removed."""
    return _QUERY.sub("", _without_credentials(_URL.sub(lambda url: public_address(url[0]), text)))


def _without_credentials(text: str) -> str:
    return _HOLDS_AN_AT.sub(lambda word: _CREDENTIALS.sub("", word[0]), text)


def is_named_like_a_setting(name: str) -> bool:
    """Return whether an unknown key may be quoted: it may be a misspelt one. Any other key may be a secret."""
    return re.fullmatch("[A-Za-z_.-]{1,40}", name) is not None


def describe_value(value: Any) -> str:
    """Describe a value without quoting text: numbers, true, false and null as they are, else kind and size."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)[:100]
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    kind = "mapping" if isinstance(value, Mapping) else "list" if isinstance(value, list | tuple) else None
    return f"a {kind} of {len(value)}" if kind else f"a {type(value).__name__}"
