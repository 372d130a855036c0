"""`backchannel produce` without a broker; `tests/integration` has one."""

from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from backchannel.ops.commands import produce
from backchannel.schemas.codec import encode
from backchannel.schemas.events import Click
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.topics import TopicError


class Away:
    """A producer whose brokers went away."""

    def __init__(self, **_: Any) -> None:
        pass

    def send(self, *_: Any, **__: Any) -> None:
        raise KafkaTimeoutError("no room after 60 s")


def test_brokers_that_go_away_are_an_error_that_names_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "KafkaProducer", Away)
    sender = produce.Sender(KafkaConfig())
    click = encode(Click(event_id="c", ts=1, session_id="s", query_id="q", entity_id="e"))
    with pytest.raises(TopicError, match=r"line 2: not sent: .*no room after 60 s"):
        list(sender.send([(1, b"no event"), (2, click)]))
