"""`backchannel topics`: create, check and delete the Kafka topics, and copy events to topics keyed by session."""

import asyncio
import signal
from typing import Final

import click
from kafka.errors import for_code
from msgspec import structs

from backchannel.ops.groups import Group
from backchannel.ops.options import config_option, json_option, kafka_config, servers_option
from backchannel.ops.terminal import print_json
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.topics import TopicError, admin_client, check_topics, delete_topics, partition_counts

PARTITIONS: Final = 8
DEAD_LETTER_BYTES: Final = 2 << 20
"""Largest dead letter: twice Kafka's own default."""


def create_topics(config: KafkaConfig, partitions: int | None, replication: int = -1) -> list[str]:
    """Create the topics that do not exist yet, check all of them, and return those that were created.

    Args:
        config: Kafka's address and the topics' names.
        partitions: partitions of each event topic and of the dead-letter topic; None: as many as existing event topics
            have, or 8.
        replication: copies of each partition; -1: the cluster's default.

    Raises:
        TopicError: Kafka refused, or an existing topic is not set up correctly.
    """
    with admin_client(config) as admin:
        existing = partition_counts(admin, config)
        counts = {name: existing[name] for name in config.event_topics.values() if name in existing}
        if partitions is None:
            partitions = max(counts.values(), default=PARTITIONS)
        elif others := [f"{name} {count}" for name, count in counts.items() if count != partitions]:
            raise TopicError(
                f"existing topics do not have {partitions} partitions: {', '.join(others)}. The number of partitions "
                "decides which one a session is in, so it cannot be changed: omit --partitions, or recreate the topics"
            )
        wanted: dict[str, dict[str, object]] = {
            name: {"num_partitions": partitions} for name in config.event_topics.values()
        }
        # A dead letter is larger than its record: it also has headers.
        # The brokers' time shows workers that their clocks are wrong; see Producer.
        letters = {"max.message.bytes": str(DEAD_LETTER_BYTES), "message.timestamp.type": "LogAppendTime"}
        wanted[config.dead_letter_topic] = {"num_partitions": partitions, "configs": letters}
        # Versions are announced in order, hence one partition; a new consumer needs only the newest, hence compaction.
        wanted[config.snapshot_topic] = {"num_partitions": 1, "configs": {"cleanup.policy": "compact"}}
        missing = {
            name: {**topic, "replication_factor": replication} for name, topic in wanted.items() if name not in existing
        }
        if missing:
            # The client's own exception would quote request and response; the broker's message is one sentence.
            answers = admin.create_topics(missing, raise_errors=False)["topics"]
            if refusals := {
                one["error_message"] or for_code(one["error_code"]).__name__ for one in answers if one["error_code"]
            }:
                raise TopicError(f"Kafka at {config.servers} refuses: {' '.join(sorted(refusals))}")
            admin.wait_for_topics(missing)
    check_topics(config)
    return list(missing)


@click.group(cls=Group)
def topics() -> None:
    """Create, check and delete the Kafka topics, and copy events to topics keyed by session."""


@topics.command()
@config_option
@servers_option
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    help=f"Partitions of each event topic.  [default: as many as existing topics have, or {PARTITIONS}]",
)
@click.option(
    "--replication",
    type=click.IntRange(1, 100),
    default=None,
    help="Copies of each partition.  [default: the cluster's]",
)
@json_option
def create(config: Config, servers: str | None, partitions: int | None, replication: int | None, as_json: bool) -> None:
    """Create the topics that are missing.

    At most as many workers can share the work as there are partitions. The number of partitions cannot be changed
    later: sessions would be separated from their open turns.
    """
    created = create_topics(kafka_config(config, servers), partitions, replication or -1)
    if as_json:
        print_json({"created": created})
    else:
        click.echo(f"created: {', '.join(created)}" if created else "nothing to create: all topics exist")


@topics.command()
@config_option
@servers_option
@json_option
def check(config: Config, servers: str | None, as_json: bool) -> None:
    """Check that the topics are set up as workers need them, and that producers agree about partitions.

    For the latter, the newest records of each event topic are compared.
    """
    from backchannel.streams.kafka.partitioning import disagreement, sample  # noqa: PLC0415 - slow to import

    kafka = kafka_config(config, servers)
    partitions = check_topics(kafka)
    if fault := disagreement(sample(kafka, config.events, partitions), partitions, kafka.event_topics["query"]):
        raise TopicError(fault)
    if as_json:
        print_json({"partitions": partitions})
    else:
        click.echo(f"the topics are set up correctly: {partitions} partitions each")


@topics.command()
@config_option
@servers_option
@click.option(
    "--to", "prefix", required=True, metavar="PREFIX", help="Prefix of the topics to write to, as topic_prefix."
)
@click.option("--partitions", type=click.IntRange(1, 10_000), help="As for `create`, if they are missing.")
@click.option("--end", "to_the_end", is_flag=True, help="Stop where the topics end, instead of at SIGTERM or SIGINT.")
@json_option
def rekey(
    *, config: Config, servers: str | None, prefix: str, partitions: int | None, to_the_end: bool, as_json: bool
) -> None:
    """Copy events to topics that are keyed by session, for producers that use another key.

    Reads the topics of the configuration, in the form that it describes, however they are keyed and partitioned; topics
    that do not exist are left out. Writes JSON to topics of the names that `topics create` gives, with PREFIX.
    Workers then read these: topic_prefix = "PREFIX", without `topics` and `events`. Invalid records become dead
    letters there.

    Events are copied in the order of their times. After a crash, run it again: it continues where it was, and may copy
    up to 2,000 events twice, which count once, because copies have the same ids and times.
    """
    from backchannel.streams.kafka.rekeying import rekey as copy  # noqa: PLC0415 - slow to import

    source = kafka_config(config, servers)
    target = structs.replace(source, topics={}, topic_prefix=prefix, schema_registry="", protobuf={})
    create_topics(target, partitions)

    async def until_stopped() -> tuple[int, int]:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await copy(source, config.events, target, stop, to_the_end=to_the_end)

    copied, letters = asyncio.run(until_stopped())
    if as_json:
        print_json({"copied": copied, "dead_letters": letters})
    else:
        click.echo(f"copied {copied:,} events; {letters:,} dead letters")


@topics.command()
@config_option
@servers_option
@click.confirmation_option("--yes", prompt="This deletes all events in them. Continue?", help="Do not ask.")
@json_option
def delete(config: Config, servers: str | None, as_json: bool) -> None:
    """Delete the topics with everything in them.

    Stop workers and producers first. What was learned stays in the store: to learn from topics created anew, begin a
    new store, too.
    """
    deleted = delete_topics(kafka_config(config, servers))
    if as_json:
        print_json({"deleted": deleted})
    else:
        click.echo(f"deleted: {', '.join(deleted)}" if deleted else "nothing to delete: no topic exists")
