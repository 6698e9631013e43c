"""Tokens for SASL OAUTHBEARER, from a callable of the user."""

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from ..errors import SetupError, describe_origin

TIMEOUT_S: Final = 10.0


class TokenFailed(KafkaConnectionError):  # type: ignore[misc]  # the client tries again, as after a lost connection
    """The callable returned no token. The message contains neither a token nor the callable's error message."""


class CallableTokens(AbstractTokenProvider):  # type: ignore[misc]
    """Calls the callable for a token at each connection; a callable that is not async runs in a thread."""

    def __init__(self, name: str, function: Callable[[], Any], *, timeout_s: float = TIMEOUT_S) -> None:
        self._name, self._function, self._timeout_s = name, function, timeout_s

    async def token(self) -> str:
        """Return a token. Raises TokenFailed when the callable fails, or returns none within `timeout_s`."""
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                token = await self._call()
        except Exception as error:  # noqa: BLE001  (user code)
            if limit.expired():
                raise TokenFailed(f"kafka.security.token {self._name}: no token within {self._timeout_s:g} s") from None
            raise TokenFailed(f"kafka.security.token {self._name} raised {describe_origin(error)}") from None
        if not isinstance(token, str) or not token:
            raise TokenFailed(
                f"kafka.security.token {self._name}: expected a token as text, found {type(token).__name__}"
            )
        return token

    async def _call(self) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function()
        found = await asyncio.to_thread(self._function)
        return await found if inspect.isawaitable(found) else found


def load_tokens(name: str) -> CallableTokens:
    """Import `module:callable`, with the working directory on the path. Raises SetupError when it does not exist."""
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except Exception as error:  # noqa: BLE001  (importing runs user code)
        raise SetupError(
            f"kafka.security.token {name}: {module_name} cannot be imported: {describe_origin(error)}"
        ) from None
    if not callable(function):
        raise SetupError(f"kafka.security.token {name}: {module_name} has no callable {attribute}")
    return CallableTokens(name, function)
