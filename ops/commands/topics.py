"""`backchannel topics`: create and check the Kafka topics."""

import os
from typing import Final

import click
from kafka.errors import for_code

from backchannel.ops.commands.config import config_option
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import SERVERS_VARIABLE, KafkaConfig, with_environment
from backchannel.streams.kafka.topics import TopicError, admin_client, check_topics, partition_counts

PARTITIONS: Final = 8
DEAD_LETTER_BYTES: Final = 2 << 20
"""Twice Kafka's own default."""

servers_option = click.option(
    "--servers", envvar=SERVERS_VARIABLE, show_envvar=True, help="host:port of one or more brokers, comma-separated."
)


def kafka_config(config: Config, servers: str | None) -> KafkaConfig:
    """Return how to reach Kafka: `--servers` wins over the environment, and this over the file.

    Raises:
        click.UsageError: a value is not valid; the message names it.
    """
    try:
        return with_environment(config.kafka, {**os.environ, SERVERS_VARIABLE: servers or ""})
    except ValueError as error:
        raise click.UsageError(f"Kafka settings: {error}") from None


def create_topics(config: KafkaConfig, partitions: int | None, replication: int = -1) -> list[str]:
    """Create the topics that do not exist yet, check all of them, and return those that were created.

    Args:
        config: where, and under which names.
        partitions: of each event topic, and of the dead letters; None: as many as event topics have, or else 8.
        replication: copies of each partition; -1: the cluster's default.

    Raises:
        TopicError: Kafka refused, or a topic that existed is not as it must be.
    """
    with admin_client(config) as admin:
        existing = partition_counts(admin, config)
        counts = {name: existing[name] for name in config.event_topics.values() if name in existing}
        if partitions is None:
            partitions = max(counts.values(), default=PARTITIONS)
        elif others := [f"{name} {count}" for name, count in counts.items() if count != partitions]:
            raise TopicError(
                f"the topics do not have {partitions} partitions, but {', '.join(others)}. Kafka keeps sessions apart "
                "by that number, so it cannot be changed here: leave out --partitions, or create the topics anew"
            )
        wanted: dict[str, dict[str, object]] = {
            name: {"num_partitions": partitions} for name in config.event_topics.values()
        }
        # A dead letter is larger than the record in it, by what its headers say.
        letters = {"max.message.bytes": str(DEAD_LETTER_BYTES)}
        wanted[config.dead_letter_topic] = {"num_partitions": partitions, "configs": letters}
        # Versions are announced in order, hence one partition; a newcomer needs the newest one only.
        wanted[config.snapshot_topic] = {"num_partitions": 1, "configs": {"cleanup.policy": "compact"}}
        missing = {
            name: {**topic, "replication_factor": replication} for name, topic in wanted.items() if name not in existing
        }
        if missing:
            # An error raised by the client would quote request and response, and the broker says it in a sentence.
            answers = admin.create_topics(missing, raise_errors=False)["topics"]
            if refusals := {
                one["error_message"] or for_code(one["error_code"]).__name__ for one in answers if one["error_code"]
            }:
                raise TopicError(f"Kafka at {config.servers} refuses: {' '.join(sorted(refusals))}")
            admin.wait_for_topics(missing)
    check_topics(config)
    return list(missing)


@click.group()
def topics() -> None:
    """Create and check the Kafka topics."""


@topics.command()
@config_option
@servers_option
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    help=f"Of each event topic.  [default: as many as those have that are there, or else {PARTITIONS}]",
)
@click.option("--replication", type=click.IntRange(1, 100), default=None, help="Copies.  [default: the cluster's]")
def create(config: Config, servers: str | None, partitions: int | None, replication: int | None) -> None:
    """Create the topics that are missing.

    As many workers can share the work as there are partitions, and their number cannot be changed later
    without separating sessions from their open turns.
    """
    try:
        created = create_topics(kafka_config(config, servers), partitions, replication or -1)
    except TopicError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"created: {', '.join(created)}" if created else "nothing to create: all topics exist")


@topics.command()
@config_option
@servers_option
def check(config: Config, servers: str | None) -> None:
    """Check that the topics are as a worker needs them."""
    try:
        partitions = check_topics(kafka_config(config, servers))
    except TopicError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"the topics are as they should be: {partitions} partitions each")
