"""What serving asks of a policy."""

from pathlib import Path

import numpy as np

from backchannel.agents.bandit import BanditConfig
from backchannel.agents.features import HISTORY, Numeric
from backchannel.ops.load import mixed_stream
from backchannel.schemas.events import Query
from backchannel.streams.config import Config
from backchannel.streams.embedded import Embedded
from backchannel.streams.reader import PolicyReader
from tests.streams.ledgers import sqlite_url


def test_the_history_of_strategies_is_served_where_it_is_a_feature(tmp_path: Path) -> None:
    events = list(mixed_stream(2_000, np.random.default_rng(1), queries=5))
    text = next(event.text for event in events if isinstance(event, Query))
    known = {}
    for name, features in (("with", (Numeric(HISTORY, scale=0.1),)), ("without", ())):
        url = sqlite_url(tmp_path, f"{name}.db")
        with Embedded(url, Config(bandit=BanditConfig(features=features)), "test") as embedded:
            embedded.feed(events)
            embedded.finish()
            embedded.commit()
            embedded.publish()
        reader = PolicyReader(url)
        known[name] = reader.policy.history(text)
        decision = reader.policy.allocate({}, 10, np.random.default_rng(0), known[name])
        assert decision.strategy_context == known[name]
        reader.close()
    assert len({lift[HISTORY] for lift in known["with"].values()}) > 1
    assert {lift[HISTORY] for lift in known["without"].values()} == {0.0}
