"""A real broker that wants OAUTHBEARER tokens."""

import asyncio
import base64
import json
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from backchannel.ops.commands.topics import create_topics
from backchannel.ops.local import broker as local
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.topics import TopicError
from tests.integration.workers import Fleet, disordered, send

# A second listener, whose tokens need no signature: Kafka's own implementation for tests.
_LISTENER = """\
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
listener.name.sasl_plaintext.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
"""


def token() -> str:
    """An unsecured JSON Web Token (RFC 7515, appendix A.5)."""
    now = int(time.time())
    parts = {"alg": "none"}, {"sub": "worker", "iat": now, "exp": now + 60}
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return f"{'.'.join(encoded)}."


def invalid() -> str:
    return "no token"


def test_workers_authenticate_with_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    listeners = f"listeners=SASL_PLAINTEXT://127.0.0.1:{port},"
    monkeypatch.setattr(local, "PROPERTIES", local.PROPERTIES.replace("listeners=", listeners, 1) + _LISTENER)
    plain = str(request.getfixturevalue("own_broker").servers)
    kafka = KafkaConfig(
        servers=f"127.0.0.1:{port}",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        sasl_token_provider=f"{__name__}:token",
    )
    with pytest.raises(TopicError):
        create_topics(structs.replace(kafka, sasl_token_provider=f"{__name__}:invalid"), partitions=2, replication=1)
    create_topics(kafka, partitions=2, replication=1)
    events = disordered(2_000, seed=7)
    with Fleet(tmp_path, kafka, window_s=1) as fleet:
        asyncio.run(send(structs.replace(kafka, servers=plain), events))
        fleet.start()
        fleet.assert_learned(events)
