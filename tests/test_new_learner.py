"""A learner of one's own: one class that learns, one that serves, and one annotated field. Nothing else is touched."""

import tomllib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import msgspec
import numpy as np
import pytest
from msgspec import Meta, Struct, field

from backchannel.agents.checks import check
from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.registry import Learners
from backchannel.agents.serving import Sections
from backchannel.agents.sums import USER, Delta, Groups, SumReader, SumTable
from backchannel.ops.commands.config import render
from backchannel.schemas.events import Event, Query
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import PolicyReader


class WordsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How words are counted."""

    scale: Annotated[float, Meta(gt=0, le=100, description="what a word counts")] = 1.0


class Words:
    """How many words a user has said: what serving makes of it."""

    name: ClassVar[str] = "words"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        self._rows = section

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:
        return cls(sections.get(cls.name, {}))

    def said(self, user: str) -> float:
        return float(self._rows.get(user, b"0"))


class WordCounter(Learner):
    """How many words a user has said: what learns it."""

    name = Words.name
    serving = Words
    table = SumTable(name="words", key=((USER, str),), sums=("words",))
    tables = (table,)

    def __init__(self, scale: float) -> None:
        self._scale = scale

    @classmethod
    def configured(cls, config: Any) -> Self:
        return cls(config.words.scale)

    def learn(self, outcomes: Outcomes) -> Delta:
        rows = np.flatnonzero(outcomes.users != MISSING)
        words = np.array([len(key.split()) for key in outcomes.keys])
        groups = Groups((outcomes.users[rows], outcomes.columns.pools.people))
        said = self._scale * words[outcomes.query[rows]] if len(rows) else np.zeros(0)
        return {self.table.name: groups.sums(self.table, [said])} if len(rows) else {}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        users = changed.get(self.table.name, ())
        found = sums.read(self.table, USER, users)
        rows = {
            user: msgspec.json.encode(words)
            for (user,), (words,) in zip(found.keys, found.values.tolist(), strict=True)
        }
        return {**dict.fromkeys(users), **rows}


class OwnConfig(Config, frozen=True, forbid_unknown_fields=True):
    """What can be configured, with one more learner."""

    words: Annotated[WordsConfig, Meta(description="Words."), Learners(WordCounter)] = field(
        default_factory=WordsConfig
    )


OWN = OwnConfig(words=WordsConfig(scale=2.0))
SAID: list[Event] = [
    Query(event_id=f"e{number}", ts=number, session_id=user, query_id=f"q{number}", text=text, user_id=user)
    for number, (user, text) in enumerate([("ann", "play some jazz"), ("bob", "stop"), ("ann", "stop")])
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    with LocalPipeline(url, OWN, "own") as embedded:
        embedded.feed(SAID)
        embedded.finish()
        embedded.commit()
        assert embedded.publish() is not None
    return url


def served(url: str) -> Policy:
    with closing(PolicyReader(url)) as reader:
        return reader.policy


def test_it_learns_is_published_and_read_back(url: str) -> None:
    words = served(url).served(Words)
    assert [words.said(user) for user in ("ann", "bob", "eve")] == [8.0, 2.0, 0.0]


def test_it_forgets_a_user(url: str) -> None:
    assert forget_user(url, OWN, "ann")
    words = served(url).served(Words)
    assert [words.said(user) for user in ("ann", "bob")] == [0.0, 2.0]
    with LocalPipeline(url, OWN, "own") as embedded:  # nor does the next version bring it back
        embedded.publish()
    assert served(url).served(Words).said("ann") == 0.0


def test_it_is_configured_and_its_configuration_has_a_fingerprint() -> None:
    assert msgspec.convert(tomllib.loads(render(OWN)), OwnConfig) == OWN
    assert OWN.fingerprint != OwnConfig().fingerprint


def test_it_keeps_the_contract() -> None:
    check(WordCounter(2.0))
