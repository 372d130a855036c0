"""What is learned for a query is found for its other spellings, and not for other queries."""

from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backchannel.schemas.events import Click, Event, Impression, Query, Result
from backchannel.schemas.text import Fold
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.turns.assembler import TurnConfig
from tests.support.pipelines import learn


def learned(url: str, asked: dict[str, str | None], folds: tuple[Fold, ...] = ()) -> Policy:
    """Return the policy after clicks for each of the queries, given with their locales, on an entity of its own."""
    events: list[Event] = []
    numbers = count(1)
    for text, locale in asked.items():
        for number in (next(numbers) for _ in range(5)):
            at = 200_000 * number
            ids: dict[str, Any] = {"session_id": f"s{number}", "query_id": f"q{number}"}
            events += [
                Query(event_id=f"{number}q", ts=at, text=text, locale=locale, user_id=f"u{number}", **ids),
                Impression(event_id=f"{number}i", ts=at + 1, results=(Result(f"entity of {text}", 1),), **ids),
                Click(event_id=f"{number}c", ts=at + 2, entity_id=f"entity of {text}", **ids),
            ]
    config = Config(turns=TurnConfig(fold=folds))
    with LocalPipeline(url, config, "test") as pipeline:
        learn(pipeline, events)
    with closing(PolicyReader(url)) as reader:
        return reader.policy


def recalled(policy: Policy, text: str, locale: str | None = None) -> list[str]:
    return [one.entity_id for one in policy.recall(text, 10, locale=locale)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


def test_emoji_are_queries_of_their_own(url: str) -> None:
    policy = learned(url, dict.fromkeys(["❤️", "✈️", "☕️", "c♯ minor", "c minor"]))
    assert recalled(policy, "❤") == ["entity of ❤️"]
    assert recalled(policy, "✈️") == ["entity of ✈️"]
    assert recalled(policy, "C♯ minor!") == ["entity of c♯ minor"]
    assert recalled(policy, "c minor") == ["entity of c minor"]


def test_a_query_is_read_in_its_locale(url: str) -> None:
    policy = learned(url, {"ISPARTA": "tr-TR", "IGLOO": "en"})
    assert recalled(policy, "ısparta", "tr") == recalled(policy, "Isparta", "tr") == ["entity of ISPARTA"]
    assert recalled(policy, "isparta", "en") == []
    assert recalled(policy, "igloo") == ["entity of IGLOO"]


def test_folds_are_those_that_the_policy_was_learned_with(url: str) -> None:
    policy = learned(url, dict.fromkeys(["Café ٤٢"]), ("digits", "diacritics"))
    assert policy.snapshot.fold == ("digits", "diacritics")
    assert recalled(policy, "cafe 42") == recalled(policy, "CAFÉ ۴۲") == ["entity of Café ٤٢"]


def test_folds_are_in_the_fingerprint() -> None:
    folded = msgspec.convert({"turns": {"fold": ["alef"]}}, Config)
    assert folded.fingerprint != Config().fingerprint
