"""Tokens for Kafka: of the function that the configuration names, for both clients."""

import asyncio
from typing import Any

import pytest
from aiokafka.abc import AbstractTokenProvider as AsynchronousProvider
from aiokafka.errors import KafkaError as AsynchronousError
from kafka.errors import KafkaError
from kafka.net.sasl.oauth import AbstractTokenProvider, SaslMechanismOAuth

from backchannel.streams.kafka.config import KafkaConfig, with_environment
from backchannel.streams.kafka.tokens import TokenError


def token() -> str:
    return "secret"


def signed() -> tuple[str, int]:
    return "signed", 1_700_000_000_000


def refused() -> str:
    raise ConnectionError("no such role")


def nothing() -> None:
    return None


def settings(function: str, *, asynchronous: bool) -> dict[str, Any]:
    config = KafkaConfig(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_token_provider=f"{__name__}:{function}"
    )
    return with_environment(config, {}).client_settings(asynchronous=asynchronous)


@pytest.mark.parametrize(("function", "expected"), [("token", "secret"), ("signed", "signed")])
def test_each_client_gets_a_provider_of_its_kind(function: str, expected: str) -> None:
    one, other = (settings(function, asynchronous=kind) for kind in (False, True))
    for found in (one, other):
        assert found["sasl_mechanism"] == "OAUTHBEARER"
        assert "sasl_plain_password" not in found
    assert isinstance(one["sasl_oauth_token_provider"], AbstractTokenProvider)
    assert isinstance(other["sasl_oauth_token_provider"], AsynchronousProvider)
    assert asyncio.run(other["sasl_oauth_token_provider"].token()) == expected
    sent = SaslMechanismOAuth(sasl_oauth_token_provider=one["sasl_oauth_token_provider"]).auth_bytes()
    assert sent == f"n,,\x01auth=Bearer {expected}\x01\x01".encode()


@pytest.mark.parametrize(("function", "said"), [("refused", "ConnectionError: no such role"), ("nothing", "NoneType")])
def test_a_token_that_cannot_be_had_is_an_error_of_kafka_that_says_why(function: str, said: str) -> None:
    with pytest.raises(KafkaError, match=f"{function}.*{said}"):
        settings(function, asynchronous=False)["sasl_oauth_token_provider"].token()
    with pytest.raises(AsynchronousError, match=f"{function}.*{said}"):
        asyncio.run(settings(function, asynchronous=True)["sasl_oauth_token_provider"].token())


def test_a_function_that_does_not_exist_is_named_at_once() -> None:
    with pytest.raises(TokenError, match="module:function"):
        settings("missing", asynchronous=True)
