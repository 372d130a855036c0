"""The methods of a policy."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backchannel.agents.bandit.features import HISTORY, Numeric
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.bandit.users import DEFECTS, REWARD, TURNS
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.events import Click, Event, Impression, Query, Result
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from tests.support.ledgers import assert_same, contents, sqlite_url


def test_the_history_of_strategies_is_served_where_it_is_a_feature(tmp_path: Path) -> None:
    events = list(mixed_stream(2_000, np.random.default_rng(1), queries=5))
    text = next(event.text for event in events if isinstance(event, Query))
    known = {}
    for name, features in (("with", (Numeric(HISTORY, scale=0.1),)), ("without", ())):
        url = sqlite_url(tmp_path, f"{name}.db")
        with LocalPipeline(url, Config(bandit=BanditConfig(features=features)), "test") as pipeline:
            pipeline.feed(events)
            pipeline.finish()
            pipeline.commit()
            pipeline.publish()
        reader = PolicyReader(url)
        known[name] = reader.policy.history(text)
        decision = reader.policy.allocate({}, 10, np.random.default_rng(0), known[name])
        assert decision.strategy_context == known[name]
        reader.close()
    assert len({lift[HISTORY] for lift in known["with"].values()}) > 1
    assert {lift[HISTORY] for lift in known["without"].values()} == {0.0}


OF_USERS = Config(
    bandit=BanditConfig(
        strategies=("lexical", "semantic"), features=(Numeric(REWARD, scale=0.1), Numeric(TURNS, scale=4.0))
    )
)


def test_what_is_known_of_users_is_decided_with_and_learned_as_it_was_then(tmp_path: Path) -> None:
    """Glad users click on results, sad ones never do; there are also new users, and anonymous ones."""
    url, rng = sqlite_url(tmp_path, "live.db"), np.random.default_rng(3)
    reader, events, shown = PolicyReader(url), list[Event](), list[Impression]()
    with LocalPipeline(url, OF_USERS, "test") as pipeline:
        for number in range(400):
            user = (None, "glad", "sad", f"stranger-{number}")[number % 4]
            at = number * 200_000
            ids: dict[str, Any] = {"session_id": f"s{number}", "query_id": f"q{number}"}
            query = Query(event_id=f"{number}q", ts=at, text="play jazz", user_id=user, **ids)
            decided: dict[str, Any] = {}
            if number >= 40:  # before that, there is no policy
                decision = reader.policy.allocate({}, 4, rng, user=user)
                decided = {name: getattr(decision, name) for name in decision.__struct_fields__}
            results = tuple(Result(name, place, (name,)) for place, name in enumerate(("lexical", "semantic"), 1))
            shown.append(Impression(event_id=f"{number}i", ts=at + 1, results=results, **ids, **decided))
            turn: list[Event] = [query, shown[-1]]
            if user == "glad":
                turn.append(Click(event_id=f"{number}c", ts=at + 2, entity_id="lexical", **ids))
            events += turn
            pipeline.feed(turn)
            if number % 20 == 19:
                pipeline.commit()
                pipeline.publish()
                reader.refresh()
        pipeline.finish()
        pipeline.commit()
        pipeline.publish()
    reader.refresh()
    policy = reader.policy
    glad, sad = policy.of_user("glad"), policy.of_user("sad")
    assert glad.keys() == sad.keys() == {REWARD, TURNS}  # only configured features are served
    assert glad[REWARD] > 0.5
    assert sad[REWARD] < -0.2
    assert policy.of_user("nobody") == {REWARD: 0.0, TURNS: 0.0}
    assert policy.of_user(None) == {}
    utilities = [policy.utilities(known)["lexical"][0] for known in (glad, sad)]
    assert utilities[0] - utilities[1] > 0.5
    # The features of a known user changed with every version.
    assert shown[0].user_context == shown[396].user_context == {}
    assert len({one.user_context[REWARD] for one in shown[41::4]}) > 10
    # Learning again from the same events gives the same, because logged features are used, not current ones.
    again = sqlite_url(tmp_path, "again.db")
    with LocalPipeline(again, OF_USERS, "test") as pipeline:
        pipeline.feed(events)
        pipeline.finish()
        pipeline.commit()
        pipeline.publish()
    assert_same(contents(again, OF_USERS), contents(url, OF_USERS))
    replayed = PolicyReader(again)
    assert replayed.policy.of_user("glad") == pytest.approx(glad)
    assert replayed.policy.of_user("sad") == pytest.approx(sad)
    for one in (reader, replayed):
        one.close()


def test_users_are_learned_only_where_that_is_a_feature(tmp_path: Path) -> None:
    assert "users" not in contents(sqlite_url(tmp_path, "without.db"), Config())
    for name in (TURNS, REWARD, DEFECTS):
        config = Config(bandit=BanditConfig(features=(Numeric(name),)))
        assert "users" in contents(sqlite_url(tmp_path, f"{name}.db"), config)


def test_a_budget_is_a_whole_number_of_any_kind(tmp_path: Path) -> None:
    """Half a candidate would never be spent: such a budget was shared out for ever."""
    url = sqlite_url(tmp_path)
    with LocalPipeline(url, Config(), "test") as pipeline:
        pipeline.publish()
    with closing(PolicyReader(url)) as reader:
        kinds: list[Any] = [20, 20.0, np.int64(20)]
        for budget in kinds:
            decision = reader.policy.allocate({}, budget)
            assert sum(decision.allocation.values()) == 20
            assert all(type(count) is int for count in decision.allocation.values())
        kinds = [2.5, "5"]
        for budget in kinds:
            for decide in (reader.policy.allocate, reader.policy.retrieval):
                with pytest.raises(ValueError, match=r"budget: .* is not a whole number"):
                    decide({}, budget)
