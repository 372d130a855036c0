"""The sample of logged decisions in the store."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.ope.gate import GateConfig
from backchannel.schemas.events import Click, Event, Impression, Query, Result
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.store import decisions
from backchannel.streams.store.engine import Store

STRATEGIES = ("lexical", "memory")


def config(**gate: Any) -> Config:
    return Config(bandit=BanditConfig(strategies=STRATEGIES, features=()), gate=GateConfig(**gate))


def events(first: int, last: int) -> list[Event]:
    """Yield turns of a policy that asks one random strategy; only `memory` gets clicks."""
    made: list[Event] = []
    for number in range(first, last):
        rng = np.random.default_rng(number)
        name = STRATEGIES[rng.integers(2)]
        common: dict[str, Any] = {"ts": 1_000_000 * number, "session_id": f"s{number % 5}", "query_id": f"q{number}"}
        made += [
            Query(event_id="q", text="x", **common),
            Impression(
                event_id="i",
                results=(Result("e", 1, (name,)),),
                allocation={name: 5},
                propensities=dict.fromkeys(STRATEGIES, 0.5),
                **common,
            ),
        ]
        if name == "memory" and rng.random() < 0.8:
            made.append(Click(event_id="c", entity_id="e", **common))
    return made


def learn(url: str, what: Config, *spans: tuple[int, int]) -> None:
    for source, (first, last) in enumerate(spans):
        with LocalPipeline(url, what, f"source{source}") as pipeline:
            pipeline.feed(events(first, last))
            pipeline.finish()
            pipeline.commit()


def sampled(url: str, size: int) -> list[tuple[str, int]]:
    with closing(Store(url)) as store, store.read() as connection:
        return [(one.session_id, one.ts) for one in decisions.read(connection, size)]


def test_the_sample_does_not_depend_on_the_order_of_turns(fresh_store_urls: Sequence[str]) -> None:
    whole, parts = fresh_store_urls
    learn(whole, config(turns=20), (0, 90))
    learn(parts, config(turns=20), (60, 90), (0, 30), (30, 60))
    assert sampled(whole, 20) == sampled(parts, 20)
    assert len(sampled(whole, 99)) == 20
    with LocalPipeline(parts, config(turns=20), "again") as pipeline:
        assert pipeline.publish() is not None  # and forgets what has left the sample
    assert sampled(whole, 99) == sampled(parts, 99)


@pytest.fixture
def fresh_store_urls(tmp_path: Path) -> list[str]:
    return [f"sqlite:///{tmp_path}/{name}.db" for name in ("whole", "parts")]


def test_without_a_sample_nothing_is_judged(store_url: str) -> None:
    learn(store_url, config(turns=0), (0, 30))
    with LocalPipeline(store_url, config(turns=0), "more") as pipeline:
        made = pipeline.publish()
    assert made is not None
    assert made.verdict is None
    assert sampled(store_url, 9) == []
