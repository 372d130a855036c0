import msgspec
import pytest

from backchannel.streams.kafka.config import KafkaConfig, with_environment


def test_the_environment_wins_over_the_file_and_an_empty_variable_does_not() -> None:
    config = KafkaConfig(servers="a:1", topic_prefix="x-")
    assert with_environment(config, {"BACKCHANNEL_KAFKA": "b:2,c:3"}).servers == "b:2,c:3"
    assert with_environment(config, {"BACKCHANNEL_KAFKA": ""}).servers == "a:1"


def test_topics_carry_the_prefix() -> None:
    config = KafkaConfig(topic_prefix="eu.")
    assert config.event_topics["barge_in"] == "eu.barge_ins"
    assert config.dead_letter_topic == "eu.dead-letters"
    assert config.snapshot_topic == "eu.policy-snapshots"


def test_topics_may_have_names_of_their_own() -> None:
    topics = KafkaConfig(topic_prefix="eu.", topics={"query": "shop.searches"}).event_topics
    assert (topics["query"], topics["click"]) == ("shop.searches", "eu.clicks")


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"servers": "no port"}, "servers"),
        ({"servers": "::1:9092"}, r"servers.*\[::1\]:9092"),
        ({"servers": "a:1,"}, "servers"),
        ({"security_protocol": "TLS"}, "security_protocol"),
        ({"session_timeout_s": 1}, "session_timeout_s"),
        ({"topic_prefix": "a/b"}, "topic_prefix"),
        ({"topics": {"querry": "a"}}, "topics: 'querry' is not an event type"),
        ({"topics": {"query": "clicks"}}, "topics: 'clicks' has two event types"),
        ({"protobuf": {"query": "no class"}}, "protobuf"),
        ({"schema_registry": "registry:8081"}, "schema_registry"),
        ({"brokers": "a:1"}, "brokers"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "me"}, "sasl_password"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "sasl_token_provider"),
        ({"sasl_token_provider": "no function"}, "sasl_token_provider"),
        ({"tls_key": "key.pem"}, "tls_certificate"),
    ],
)
def test_a_bad_value_is_named(table: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        with_environment(msgspec.convert(table, KafkaConfig), {})


def test_addresses_may_have_spaces_between_them_and_brackets() -> None:
    config = KafkaConfig(servers="a:1, [::1]:9092 ,b-2.example:3")
    assert config.client_settings()["bootstrap_servers"] == ["a:1", "[::1]:9092", "b-2.example:3"]


def test_clients_get_what_the_protocol_needs_and_no_more() -> None:
    plain = KafkaConfig(servers="a:1,b:2").client_settings()
    assert plain == {"bootstrap_servers": ["a:1", "b:2"], "security_protocol": "PLAINTEXT", "ssl_context": None}
    config = KafkaConfig(security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="me")
    sasl = with_environment(config, {"BACKCHANNEL_KAFKA_PASSWORD": "secret"}).client_settings()
    assert sasl["ssl_context"].check_hostname
    assert sasl["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (sasl["sasl_plain_username"], sasl["sasl_plain_password"]) == ("me", "secret")
