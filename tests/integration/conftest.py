"""A real broker: the one that BACKCHANNEL_KAFKA names, or a local one, started once."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from backchannel.ops.commands.topics import create_topics
from backchannel.ops.local.broker import Broker, BrokerError
from backchannel.streams.kafka.config import SERVERS_VARIABLE, KafkaConfig
from tests.support.servers import missing


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker that runs during the tests."""
    if given := os.environ.get(SERVERS_VARIABLE):
        yield given
        return
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    yield _start(broker)
    broker.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A running broker for one test, which may stop, pause and kill it."""
    broker = Broker(tmp_path)
    _start(broker)
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def new_topics() -> Callable[[str], KafkaConfig]:
    """Return a function that creates topics with a new prefix, four partitions each, and names a new group."""
    numbers = count(1)

    def create(servers: str) -> KafkaConfig:
        prefix = f"t{os.getpid()}-{next(numbers)}-"
        config = KafkaConfig(servers=servers, topic_prefix=prefix, group=f"{prefix}workers", session_timeout_s=6.0)
        create_topics(config, partitions=4, replication=1)
        return config

    return create


@pytest.fixture
def kafka(servers: str, new_topics: Callable[[str], KafkaConfig]) -> KafkaConfig:
    """Topics and a group for one test."""
    return new_topics(servers)


def _start(broker: Broker) -> str:
    try:
        return broker.start()
    except BrokerError as error:
        missing(f"no broker to test against: {error}")
