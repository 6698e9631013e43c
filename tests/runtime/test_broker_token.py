"""A token for the broker from a callable of the operator: what of it is too late, and what failed by itself."""

import asyncio

import pytest

from murmura.runtime.settings.broker_token import CallableTokens, TokenFailed


async def never() -> str:
    await asyncio.Event().wait()
    return "token"


async def times_out() -> str:
    raise TimeoutError("the identity provider's own deadline")


async def test_a_token_that_takes_too_long_is_told_from_a_callable_whose_own_call_timed_out() -> None:
    with pytest.raises(TokenFailed, match=r"no token within 0\.01 s"):
        await CallableTokens("shop:token", never, timeout_s=0.01).token()
    with pytest.raises(TokenFailed, match="shop:token raised TimeoutError"):
        await CallableTokens("shop:token", times_out, timeout_s=60).token()
