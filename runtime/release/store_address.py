"""The address of a model store as it may be shown: in logs, events and errors it comes without what gives access."""

import re
from typing import Final
from urllib.parse import unquote

_HIDDEN: Final = "***"
_SHORTEST: Final = 4
"""Shorter parts of an address would be found by chance in any message."""


class StoreAddress:
    """A path or an fsspec URL, and what of it is secret: user, password, key, token, whatever stands in the query."""

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
        # A client may quote a part of it only.
        self._secrets = sorted({part for form in forms for part in _parts(form)}, key=len, reverse=True)

    def clean(self, message: str) -> str:
        """Return a message without the secrets of the address, whoever wrote it."""
        for secret in self._secrets:
            message = message.replace(secret, _HIDDEN)
        return message


def _parts(secret: str) -> set[str]:
    """Return all parts of a secret that begin and end at a separator, or at its own ends."""
    separators = list(re.finditer("[:&=?#/@]", secret))
    begins, ends = [0, *(each.end() for each in separators)], [*(each.start() for each in separators), len(secret)]
    return {secret[begin:end] for begin in begins for end in ends if end - begin >= _SHORTEST}


def _split(rest: str) -> tuple[str, list[str]]:
    """Return what may be shown of what follows `://`, and what may not.

    A secret may hold `/`, `?` and `@` although it should have been quoted. So credentials reach to the last `@`, and where
    one comes behind a `?` nobody can say which of both is the secret: then nothing is shown.
    """
    query = re.search("[?#]", rest)
    at = rest.rfind("@")
    if query is None:
        return rest[at + 1 :], [rest[:at]] if at >= 0 else []
    if at > query.start():
        return _HIDDEN, [rest, rest[:at], rest[query.end() :]]
    return rest[at + 1 : query.start()], [*([rest[:at]] if at >= 0 else []), rest[query.end() :]]
