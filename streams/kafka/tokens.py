"""OAUTHBEARER tokens of the function that the configuration names: one provider for each of the two Kafka clients."""

import asyncio
import importlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from aiokafka.abc import AbstractTokenProvider as AsynchronousProvider
from aiokafka.errors import KafkaError as AsynchronousError
from kafka.errors import KafkaError
from kafka.net.sasl.oauth import AbstractTokenProvider

from backchannel.schemas.errors import BackchannelError

Source: TypeAlias = Callable[[], Any]
"""Returns a token, or a tuple that begins with one: what signs for clouds' IAM often returns its expiry, too."""


class TokenError(BackchannelError, ValueError):
    """There is no token; the message names the function and says why."""


class Tokens(AbstractTokenProvider):  # type: ignore[misc] # not typed
    """The tokens of a function, for kafka-python.

    Args:
        name: `module:function`.

    Raises:
        TokenError: there is no such function.
    """

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._source: Final = _imported(name)

    def token(self) -> str:
        """Return a token; every connection asks for one."""
        try:
            return _token(self._name, self._source)
        except TokenError as error:
            raise KafkaError(str(error)) from error


class AsynchronousTokens(AsynchronousProvider):  # type: ignore[misc] # not typed
    """The tokens of a function, for aiokafka: it is called in a thread, because it may ask a server.

    Args:
        name: see `Tokens`.

    Raises:
        TokenError: there is no such function.
    """

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._source: Final = _imported(name)

    async def token(self) -> str:
        """Return a token; every connection asks for one."""
        try:
            return await asyncio.to_thread(_token, self._name, self._source)
        except TokenError as error:
            raise AsynchronousError(str(error)) from error


def _imported(name: str) -> Source:
    module, _, function = name.partition(":")
    try:
        source: Source = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise TokenError(f"kafka.sasl_token_provider: {name!r} is not module:function: {error}") from error
    return source


def _token(name: str, source: Source) -> str:
    try:
        found = source()
    except Exception as error:  # whatever it calls may raise anything
        raise TokenError(f"kafka.sasl_token_provider {name}: {type(error).__name__}: {error}") from error
    token = found[0] if isinstance(found, tuple) and found else found
    if not isinstance(token, str) or not token:
        raise TokenError(f"kafka.sasl_token_provider {name} returned {type(token).__name__}, not a token as a text")
    return token
