"""`backchannel produce` without a broker; `tests/integration` has one."""

import re
from typing import Any
from unittest.mock import Mock

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


class Taking:
    """A producer that takes everything, and what it took."""

    def __init__(self, **_: Any) -> None:
        self.taken: list[int] = []

    def send(self, *_: Any, timestamp_ms: int, **__: Any) -> Any:
        self.taken.append(timestamp_ms)
        return Mock()


@pytest.mark.parametrize("now", [False, True])
def test_a_clock_that_is_ahead_costs_its_own_line_only(monkeypatch: pytest.MonkeyPatch, now: bool) -> None:
    taking = Taking()
    monkeypatch.setattr(produce, "KafkaProducer", lambda **_: taking)
    sender = produce.Sender(KafkaConfig(), now=now, max_ahead_s=300.0)
    lines = [encode(Click(event_id="c", ts=ts, session_id="s", query_id="q", entity_id="e")) for ts in (1, 10**14, 2)]
    assert list(sender.send(enumerate(lines, start=1))) == [1, 2, 3]
    if now:
        assert (len(taking.taken), sender.failures) == (3, [])
    else:
        assert taking.taken == [1, 2]
        [failure] = sender.failures
        assert failure.line == 2
        assert re.fullmatch(r"ts: 1000\S+ is \S+ s ahead of the clock, turns.max_ahead_s = 300", failure.reason)


def test_brokers_that_go_away_are_an_error_that_names_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "KafkaProducer", Away)
    sender = produce.Sender(KafkaConfig())
    click = encode(Click(event_id="c", ts=1, session_id="s", query_id="q", entity_id="e"))
    with pytest.raises(TopicError, match=r"line 2: not sent: .*no room after 60 s"):
        list(sender.send([(1, b"no event"), (2, click)]))
