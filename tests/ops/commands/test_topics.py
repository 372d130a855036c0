"""`backchannel topics`, and its messages when a cluster refuses; tests/integration has a cluster that does not."""

from collections.abc import Iterable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kafka.errors import InvalidConfigurationError, KafkaTimeoutError

from backchannel.ops.cli import main

REFUSAL = "Unable to replicate the partition 3 time(s)."


class Cluster:
    """A stand-in for the client: it has the topics in `partitions`, and refuses to create others."""

    partitions: dict[str, int]
    fault: Exception | None

    def __init__(self, **_: object) -> None:
        if self.fault is not None:
            raise self.fault

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def describe_topics(self, names: Iterable[str]) -> list[dict[str, Any]]:
        return [
            {"name": name, "error_code": 0 if count else 3, "partitions": [{}] * count}
            for name in names
            for count in [self.partitions.get(name, 0)]
        ]

    def create_topics(self, topics: Iterable[str], **_: object) -> dict[str, Any]:
        return {"topics": [{"name": name, "error_code": 38, "error_message": REFUSAL} for name in topics]}


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[Cluster]:
    """A cluster without topics."""
    monkeypatch.setattr(Cluster, "partitions", {}, raising=False)
    monkeypatch.setattr(Cluster, "fault", None, raising=False)
    monkeypatch.setattr("backchannel.streams.kafka.topics.KafkaAdminClient", Cluster)
    return Cluster


def create(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["topics", "create", "--servers", "127.0.0.1:1", *arguments])


def test_what_the_broker_refuses_is_said_in_its_words() -> None:
    done = create("--replication", "3")
    assert done.exit_code == 1
    assert done.output == f"Error: Kafka at 127.0.0.1:1 refuses: {REFUSAL}\n"


@pytest.mark.parametrize(("fault", "hint"), [(KafkaTimeoutError(), True), (InvalidConfigurationError("no"), False)])
def test_only_who_does_not_answer_may_have_another_address(
    cluster: type[Cluster], fault: Exception, hint: bool
) -> None:
    cluster.fault = fault
    done = create()
    assert done.exit_code == 1
    assert ("BACKCHANNEL_KAFKA" in done.output) == hint


def test_another_number_of_partitions_than_there_is_is_refused(cluster: type[Cluster]) -> None:
    cluster.partitions = {"queries": 4, "clicks": 4}
    done = create("--partitions", "8")
    assert done.exit_code == 1
    assert "queries 4, clicks 4" in done.output


@pytest.mark.parametrize(("partitions", "expected"), [({"queries": 4, "clicks": 4}, 4), ({}, 8)])
def test_missing_topics_are_like_those_that_are_there(
    cluster: type[Cluster], monkeypatch: pytest.MonkeyPatch, partitions: dict[str, int], expected: int
) -> None:
    asked: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(cluster, "create_topics", lambda _, topics, **__: asked.update(topics) or {"topics": []})
    monkeypatch.setattr(cluster, "wait_for_topics", lambda *_: None, raising=False)
    monkeypatch.setattr("backchannel.ops.commands.topics.check_topics", lambda _: None)
    cluster.partitions = partitions
    assert create().exit_code == 0
    assert asked["barge_ins"]["num_partitions"] == expected
    assert "clicks" not in asked or not partitions
