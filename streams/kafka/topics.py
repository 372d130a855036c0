"""The topics: their requirements, and a check that they meet them."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    UnknownTopicOrPartitionError,
    for_code,
)

from backchannel.schemas.errors import BackchannelError
from backchannel.streams.kafka.config import SERVERS_VARIABLE, KafkaConfig


class TopicError(BackchannelError, RuntimeError):
    """The topics cannot be reached, or do not meet the requirements. The message names them and the remedy."""


@contextmanager
def admin_client(config: KafkaConfig) -> Iterator[KafkaAdminClient]:
    """Connect to the cluster.

    Raises:
        TopicError: the cluster cannot be reached, or refuses a request.
    """
    try:
        with KafkaAdminClient(**config.client_settings(), bootstrap_timeout_ms=5_000) as admin:
            yield admin
    except (KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError) as error:
        raise TopicError(
            f"Kafka at {config.servers} does not answer: {error}; its address comes from `kafka.servers` in the "
            f"configuration or from {SERVERS_VARIABLE}"
        ) from error
    except KafkaError as error:
        raise TopicError(f"Kafka at {config.servers} refused the request: {error}") from error


def partition_counts(admin: KafkaAdminClient, config: KafkaConfig) -> dict[str, int]:
    """Return the number of partitions of each of our topics that exists."""
    found = {}
    for topic in admin.describe_topics(topic_names(config)):
        error = for_code(topic["error_code"])
        if error is UnknownTopicOrPartitionError:
            continue
        if topic["error_code"]:
            raise TopicError(f"{topic['name']}: {error.__name__}")
        found[topic["name"]] = len(topic["partitions"])
    return found


def topic_ids(config: KafkaConfig) -> dict[str, str]:
    """Return Kafka's id of each event topic; a topic that is deleted and created anew has another one.

    Brokers older than 2.8 have no ids.

    Raises:
        TopicError: the cluster cannot be reached.
    """
    with admin_client(config) as admin:
        found = admin.describe_topics(list(config.event_topics.values()))
    ids = {topic["name"]: str(topic.get("topic_id") or "") for topic in found}
    return {name: one for name, one in ids.items() if one.strip("0-")}


def topic_names(config: KafkaConfig) -> list[str]:
    """Return the names of all topics: events, dead letters, policy snapshots."""
    return [*config.event_topics.values(), config.dead_letter_topic, config.snapshot_topic]


def check_topics(config: KafkaConfig) -> int:
    """Connect, and check the topics; see `check_topics_with`."""
    with admin_client(config) as admin:
        return check_topics_with(admin, config)


def check_topics_with(admin: KafkaAdminClient, config: KafkaConfig) -> int:
    """Check the topics, and return the number of partitions that each event topic has.

    A session's events lie in the same partition number of every event topic, because producers partition by a hash
    of the session id modulo the number of partitions.

    Raises:
        TopicError: a topic is missing, the event topics have different numbers of partitions, the snapshot topic is
            not compacted, or another one is.
    """
    counts = partition_counts(admin, config)
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, ["cleanup.policy"]) for name in topic_names(config)]
    described = admin.describe_configs(resources, config_filter="all")["topic"]
    # A topic that is being deleted still has partitions, but no settings.
    if missing := [name for name in topic_names(config) if name not in counts or not described.get(name)]:
        raise TopicError(f"missing: {', '.join(missing)}; `backchannel topics create` creates them")
    by_count = defaultdict(list)
    for name in config.event_topics.values():
        by_count[counts[name]].append(name)
    if len(by_count) > 1:
        raise TopicError(
            "the event topics must have the same number of partitions, but "
            + "; ".join(f"{', '.join(names)}: {count}" for count, names in sorted(by_count.items()))
            + ". Add partitions to the smaller ones before anything is produced, or recreate the topics"
        )
    events = [*config.event_topics.values(), config.dead_letter_topic]
    compacted = [name for name in topic_names(config) if "compact" in described[name]["cleanup.policy"]["value"]]
    if config.snapshot_topic not in compacted:
        raise TopicError(f"{config.snapshot_topic} is not compacted: set its cleanup.policy to compact")
    if lossy := [name for name in events if name in compacted]:
        raise TopicError(
            f"{', '.join(lossy)}: compacted, which keeps only the last event of each session: set cleanup.policy "
            "to delete"
        )
    return next(iter(by_count))


def delete_topics(config: KafkaConfig) -> list[str]:
    """Delete those of our topics that exist, with all their records, and return their names.

    Raises:
        TopicError: the cluster cannot be reached, or refuses.
    """
    with admin_client(config) as admin:
        existing = list(partition_counts(admin, config))
        if existing:
            admin.delete_topics(existing)
        return existing
