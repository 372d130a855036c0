"""How to reach Kafka, and the names of the topics: one struct for both Faust and kafka-python."""

import os
import re
import ssl
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from backchannel.schemas.documents import DEAD_LETTERS, SNAPSHOTS
from backchannel.schemas.events import EVENT_TYPES

SERVERS_VARIABLE = "BACKCHANNEL_KAFKA"
PASSWORD_VARIABLE = "BACKCHANNEL_KAFKA_PASSWORD"  # noqa: S105 -- a variable's name
REGISTRY_VARIABLE = "BACKCHANNEL_SCHEMA_REGISTRY_AUTH"


class KafkaConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connection, topic names and group membership; `with_environment` completes and checks it."""

    servers: Annotated[
        str,
        Meta(
            description=f"host:port of one or more brokers, comma-separated; {SERVERS_VARIABLE} overrides it",
        ),
    ] = "127.0.0.1:9092"
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(description="encryption and authentication of the connection"),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
        Meta(description="used with SASL_PLAINTEXT and SASL_SSL"),
    ] = "PLAIN"
    sasl_username: Annotated[str, Meta(description="used with PLAIN and SCRAM")] = ""
    sasl_password: Annotated[str, Meta(description=f"prefer setting {PASSWORD_VARIABLE}")] = ""
    sasl_token_provider: Annotated[
        str,
        Meta(
            pattern=r"^([\w.]+:\w+)?$",
            description="used with OAUTHBEARER: module:function that returns a token, or a tuple that begins with one, "
            "for each new connection, such as of a module of yours that asks your cloud's IAM",
        ),
    ] = ""
    tls_ca: Annotated[str, Meta(description="file of trusted certificates (PEM); empty: the system's")] = ""
    tls_certificate: Annotated[str, Meta(description="file of the client certificate (PEM), if brokers want one")] = ""
    tls_key: Annotated[str, Meta(description="file with the key of tls_certificate (PEM)")] = ""
    topic_prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,100}$", description="prefix of every topic name")] = (
        ""
    )
    topics: Annotated[
        dict[str, Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]],
        Meta(
            description="event type -> topic, for topics with other names; topic_prefix is not added. The others have "
            "their own names"
        ),
    ] = {}
    schema_registry: Annotated[
        str,
        Meta(
            pattern=r"^(https?://\S+)?$",
            description="URL of a schema registry; records are then Avro, Protobuf or JSON in Confluent's wire format",
        ),
    ] = ""
    schema_registry_auth: Annotated[str, Meta(description=f"user:password; prefer setting {REGISTRY_VARIABLE}")] = ""
    protobuf: Annotated[
        dict[str, Annotated[str, Meta(pattern=r"^[\w.]+:\w+$")]],
        Meta(description="event type -> module:class of its Protobuf messages, as protoc generates it"),
    ] = {}
    group: Annotated[
        str, Meta(min_length=1, max_length=200, description="consumer group; workers of one group share the partitions")
    ] = "backchannel"
    isolation: Annotated[
        Literal["read_committed", "read_uncommitted"],
        Meta(description="whether records of transactions are learned only once they are committed"),
    ] = "read_committed"
    session_timeout_s: Annotated[
        float, Meta(ge=6, le=300, description="seconds until a dead worker's partitions are reassigned")
    ] = 10.0

    def __post_init__(self) -> None:
        # Not a pattern of the field, whose message would only quote the pattern.
        if not all(re.fullmatch(r"([^\s,:\[\]]+|\[[0-9A-Fa-f:.]+\]):\d+", broker) for broker in self.brokers):
            raise ValueError(
                f"servers: {self.servers!r} is not host:port of one or more brokers, comma-separated; an IPv6 address "
                "is in brackets, as in [::1]:9092"
            )
        for key, names in (("topics", self.topics), ("protobuf", self.protobuf)):
            if unknown := sorted(names.keys() - EVENT_TYPES.keys()):
                raise ValueError(f"{key}: {unknown[0]!r} is not an event type: {', '.join(EVENT_TYPES)}")
        taken = Counter(self.event_topics.values())
        if twice := [topic for topic, count in taken.items() if count > 1]:
            raise ValueError(f"topics: {twice[0]!r} has two event types; each needs a topic of its own")

    @property
    def brokers(self) -> list[str]:
        """The brokers' addresses, host:port each."""
        return [broker.strip() for broker in self.servers.split(",")]

    @property
    def event_topics(self) -> dict[str, str]:
        """Event type -> topic."""
        return {
            name: self.topics.get(name, self.topic_prefix + event_type.topic)
            for name, event_type in EVENT_TYPES.items()
        }

    @property
    def dead_letter_topic(self) -> str:
        """The topic that receives records that are not valid events."""
        return f"{self.topic_prefix}{DEAD_LETTERS}"

    @property
    def snapshot_topic(self) -> str:
        """The topic that announces each published version of the policy."""
        return f"{self.topic_prefix}{SNAPSHOTS}"

    @property
    def source(self) -> str:
        """The store's name for what is read; each group and prefix has partitions of its own."""
        return f"kafka:{self.group}" + (f"/{self.topic_prefix}" if self.topic_prefix else "")

    @property
    def sasl(self) -> bool:
        """Whether the client authenticates with SASL."""
        return self.security_protocol.startswith("SASL")

    @property
    def oauth(self) -> bool:
        """Whether it does so with tokens."""
        return self.sasl and self.sasl_mechanism == "OAUTHBEARER"

    def tokens(self, *, asynchronous: bool) -> Any:
        """Return the token provider of a client."""
        from backchannel.streams.kafka import tokens  # noqa: PLC0415 - needs the clients, which a configuration does not

        provider = tokens.AsynchronousTokens if asynchronous else tokens.Tokens
        return provider(self.sasl_token_provider)

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS settings, or None for an unencrypted connection.

        Raises:
            OSError: a file cannot be read.
        """
        if not self.security_protocol.endswith("SSL"):
            return None
        context = ssl.create_default_context(cafile=self.tls_ca or None)
        if self.tls_certificate:
            context.load_cert_chain(self.tls_certificate, self.tls_key or None)
        return context

    def client_settings(self, *, asynchronous: bool = False) -> dict[str, Any]:
        """Return the connection settings of a kafka-python client; if `asynchronous`, of an aiokafka client.

        Raises:
            ValueError: the token provider cannot be imported.
            OSError: a file cannot be read.
        """
        settings: dict[str, Any] = {
            "bootstrap_servers": self.brokers,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context(),
        }
        if self.oauth:
            settings |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_oauth_token_provider": self.tokens(asynchronous=asynchronous),
            }
        elif self.sasl:
            settings |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return settings


def with_environment(config: KafkaConfig, environment: Mapping[str, str] = os.environ) -> KafkaConfig:
    """Return the settings to connect with: environment variables override `config`, so it need not hold the password.

    Raises:
        ValueError: a variable is invalid, or settings contradict each other; the message names them.
    """
    overrides = {
        key: environment[variable]
        for key, variable in (
            ("servers", SERVERS_VARIABLE),
            ("sasl_password", PASSWORD_VARIABLE),
            ("schema_registry_auth", REGISTRY_VARIABLE),
        )
        if environment.get(variable)
    }
    complete = msgspec.convert({**msgspec.structs.asdict(config), **overrides}, KafkaConfig)
    if complete.oauth and not complete.sasl_token_provider:
        raise ValueError("sasl_mechanism OAUTHBEARER needs sasl_token_provider, a module:function that returns tokens")
    if complete.sasl and not complete.oauth and not (complete.sasl_username and complete.sasl_password):
        raise ValueError(
            f"security_protocol {complete.security_protocol} needs sasl_username and sasl_password "
            f"(or {PASSWORD_VARIABLE})"
        )
    if complete.tls_key and not complete.tls_certificate:
        raise ValueError("tls_key needs tls_certificate")
    return complete
