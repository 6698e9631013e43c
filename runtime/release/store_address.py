"""Removes credentials from the address of a model store for logs, events and errors."""

import re
from typing import Final
from urllib.parse import unquote

_HIDDEN: Final = "***"
_SHORTEST: Final = 4
"""Minimum length of a secret part: shorter ones would match any message by chance."""


class StoreAddress:
    """A path or an fsspec URL, and its secret parts: user, password, key, token, and the whole query."""

    def __init__(self, url: str) -> None:
        self.shown = url
        """The address without credentials and query."""
        self._secrets: list[str] = []
        scheme, separator, rest = url.partition("://")
        if not separator:
            return
        place, secrets = _split(rest)
        self.shown = f"{scheme}://{place}"
        forms = {form for secret in secrets for form in (secret, unquote(secret))}
        # The message of a client may contain only a part of a secret.
        self._secrets = sorted({part for form in forms for part in _parts(form)}, key=len, reverse=True)

    def clean(self, message: str) -> str:
        """Return a message with the secrets of the address replaced."""
        for secret in self._secrets:
            message = message.replace(secret, _HIDDEN)
        return message


def _parts(secret: str) -> set[str]:
    """Return all parts of a secret that start and end at a separator or at its ends."""
    separators = list(re.finditer("[:&=?#/@]", secret))
    begins, ends = [0, *(each.end() for each in separators)], [*(each.start() for each in separators), len(secret)]
    return {secret[begin:end] for begin in begins for end in ends if end - begin >= _SHORTEST}


def _split(rest: str) -> tuple[str, list[str]]:
    """Return the public part of the text after `://`, and the secret parts.

    An unquoted secret may contain `/`, `?` and `@`. So credentials extend to the last `@`. If that follows a `?`, the secret
    cannot be located, and nothing is shown.
    """
    query = re.search("[?#]", rest)
    at = rest.rfind("@")
    if query is None:
        return rest[at + 1 :], [rest[:at]] if at >= 0 else []
    if at > query.start():
        return _HIDDEN, [rest, rest[:at], rest[query.end() :]]
    return rest[at + 1 : query.start()], [*([rest[:at]] if at >= 0 else []), rest[query.end() :]]
