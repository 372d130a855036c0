"""The sample of logged decisions in the store, and the gate in the publisher."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.ope.gate import GateConfig
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.sums import SumReader, Sums
from backchannel.schemas.events import Click, Event, Impression, Query, Result
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store import decisions
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution

STRATEGIES = ("lexical", "memory")


def config(**gate: Any) -> Config:
    return Config(bandit=BanditConfig(strategies=STRATEGIES, features=()), gate=GateConfig(**gate))


def events(first: int, last: int) -> list[Event]:
    """Turns of a policy that asks one strategy at random; only `memory` gets clicks."""
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


def test_the_sample_is_the_same_however_the_turns_came(fresh_store_urls: Sequence[str]) -> None:
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


def test_no_sample_no_judgement(store_url: str) -> None:
    learn(store_url, config(turns=0), (0, 30))
    with LocalPipeline(store_url, config(turns=0), "more") as pipeline:
        made = pipeline.publish()
    assert made is not None
    assert made.verdict is None
    assert sampled(store_url, 9) == []


def test_versions_say_what_the_gate_said(store_url: str) -> None:
    what = config(minimum_effective=100)
    with LocalPipeline(store_url, what, "s") as pipeline:
        verdicts, reasons = [], []
        for first in range(0, 600, 60):
            pipeline.feed(events(first, first + 60))
            pipeline.commit()
            made = pipeline.publish()
            assert made is not None
            verdicts.append(made.verdict)
            reasons.append(str(made.reason))
    assert set(verdicts) == {"publish"}
    assert reasons[0] == "the first version"
    assert reasons[1].startswith("early learning")
    assert "to the live policy" in reasons[-1]


def test_while_a_bandit_is_held_back_the_rest_goes_on(
    store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    what = config(minimum_effective=50, max_change=1.0)
    with LocalPipeline(store_url, what, "s") as pipeline, PolicyReader(store_url) as reader:
        pipeline.feed(events(0, 300))
        pipeline.commit()
        good = pipeline.publish()
        assert good is not None
        before, learner = reader.policy, pipeline._publisher._learning.learners[0]

        def broken(sums: SumReader, changed: Any, at: int) -> dict[str, bytes | None]:
            """Prefers what nobody clicks."""
            section = type(learner).solve(learner, sums, changed, at)
            for name, worth in zip(STRATEGIES, (0.9, 0.0), strict=True):
                row = orjson.loads(section[name] or b"")
                section[name] = orjson.dumps({**row, "theta": [worth]})
            return section

        with monkeypatch.context() as patch:
            patch.setattr(learner, "solve", broken)
            pipeline.feed(events(300, 320))
            pipeline.commit()
            held = pipeline._publisher.publish(5_000)
            assert held is not None
            assert (held.version, held.verdict, held.held) == (good.version + 1, "hold", 5_000)
            assert "to the live policy" in str(held.reason)
            assert f"version {held.version} goes on with the bandit that is served" in caplog.text
            reader.refresh()
            assert reader.policy.version == held.version
            assert reader.policy.evidence() == before.evidence()
            assert reader.policy.recall("x", 1) != before.recall("x", 1)
            # Since when it waits is remembered, be it judged again or not.
            pipeline.feed(events(320, 330))
            pipeline.commit()
            again = pipeline._publisher.publish(6_000)
            assert again is not None
            assert (again.verdict, again.held) == ("hold", 5_000)
            with closing(Store(store_url)) as store, store.read() as connection:
                assert snapshots.withheld(connection) == 5_000

        rules, claim = RephraseGraph(what.rephrases).rules, pipeline.ledger.claim("rules", 0)
        pin = {rules.name: Sums(rules, [("x", "y")], np.array([[1.0, 0.0]]))}
        pipeline.ledger.commit([Contribution(claim, claim.position, pin, {})])
        unjudged = pipeline._publisher.publish(7_000)
        assert unjudged is not None
        assert (unjudged.verdict, unjudged.held, unjudged.reason) == ("hold", 5_000, again.reason)

        pipeline.feed(events(330, 350))
        pipeline.commit()
        mended = pipeline.publish()
        assert mended is not None
        assert (mended.verdict, mended.held) == ("publish", None)
        assert mended.rows["bandit"] == len(STRATEGIES) + 1
        reader.refresh()
        assert reader.policy.version == mended.version == good.version + 4
        assert reader.policy.evidence() != before.evidence()
