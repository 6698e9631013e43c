"""Tokens for SASL OAUTHBEARER, from a callable that the user names."""

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from ..errors import SetupError, place_of

TIMEOUT_S: Final = 10.0


class TokenFailed(KafkaConnectionError):  # type: ignore[misc]  # the client tries again, as after a lost connection
    """The callable gave no token. The message quotes neither a token nor what the callable raised."""


class CallableTokens(AbstractTokenProvider):  # type: ignore[misc]
    """Asks the callable for a token at each connection; one that is not async is called in a thread."""

    def __init__(self, name: str, ask: Callable[[], Any], *, timeout_s: float = TIMEOUT_S) -> None:
        self._name, self._ask, self._timeout_s = name, ask, timeout_s

    async def token(self) -> str:
        """Return a token. Raises TokenFailed when there is none within the time."""
        try:
            async with asyncio.timeout(self._timeout_s):
                token = await self._called()
        except TimeoutError:
            raise TokenFailed(f"kafka.security.token {self._name}: no token within {self._timeout_s:g} s") from None
        except Exception as error:  # noqa: BLE001  (it is the user's)
            raise TokenFailed(f"kafka.security.token {self._name} raised {place_of(error)}") from None
        if not isinstance(token, str) or not token:
            raise TokenFailed(
                f"kafka.security.token {self._name}: expected a token as text, found {type(token).__name__}"
            )
        return token

    async def _called(self) -> Any:
        if inspect.iscoroutinefunction(self._ask):
            return await self._ask()
        found = await asyncio.to_thread(self._ask)
        return await found if inspect.isawaitable(found) else found


def load_tokens(name: str) -> CallableTokens:
    """Import `module:callable`, from the working directory too. Raises SetupError when there is no such callable."""
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        ask = getattr(importlib.import_module(module_name), attribute, None)
    except Exception as error:  # noqa: BLE001  (what a module raises when it is imported is its own)
        raise SetupError(f"kafka.security.token {name}: {module_name} cannot be imported: {place_of(error)}") from None
    if not callable(ask):
        raise SetupError(f"kafka.security.token {name}: {module_name} has no callable {attribute}")
    return CallableTokens(name, ask)
