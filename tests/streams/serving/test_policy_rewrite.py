"""Rewrites in a policy."""

from contextlib import closing
from typing import Any

import msgspec
import numpy as np
import pytest

from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.habit_ranking import HabitRanking
from backchannel.agents.rewrites.rows import RewriteRow, Settings, is_held_out
from backchannel.agents.rewrites.serving import Rewriting
from backchannel.agents.sums import ALL, MemorySums
from backchannel.schemas.events import Click, Hypothesis, Query
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import PolicyReader
from tests.support.habits import TEXTS, said
from tests.support.ledgers import contents
from tests.support.pipelines import learn, turn


def policy(
    rewrites: dict[str, RewriteRow], personal: dict[str, dict[str, tuple[str, float]]] | None = None, share: float = 0.0
) -> Policy:
    bandit = StrategyBandit(BanditConfig()).solve(MemorySums({}), {"bandit": set()}, 0)
    rows = {state: msgspec.json.encode(row) for state, row in rewrites.items()}
    sections = {
        "bandit": {key: row for key, row in bandit.items() if row},
        "rewrites": {**rows, ALL: msgspec.json.encode(Settings(share))},
        "personal_rewrites": {user: msgspec.json.encode(own) for user, own in (personal or {}).items()},
    }
    header = Snapshot(
        version=7, parent=None, created=0, watermark=0, positions={}, fingerprint="", rows={}, checksum=""
    )
    return Policy(header, sections, np.random.default_rng(0))


LEARNED = RewriteRow(target="b", probability=0.5, support=4.0)


def test_everybodys_rewrite_with_its_probability_and_version() -> None:
    one = policy({"play jass": LEARNED})
    assert one.rewrite("Play JASS!") == Rewriting("b", "global", 0.5, 7, 4.0)
    assert one.rewrite("play jazz") is None
    assert one.rewrite("x", interpretation="play jass") == one.rewrite("play jass")
    assert one.rewrite("") is None
    assert list(one.rewrites()) == ["play jass"]


def test_an_opposite_is_served_only_where_it_may_have_been_heard() -> None:
    one = policy({"turn on": RewriteRow(target="turn off", probability=0.5, support=20.0, heard=True)})
    heard = Hypothesis("Turn on", -1.0), Hypothesis("Turn off!", -1.5)
    assert one.rewrite("turn on") is None
    assert one.rewrite("turn on", hypotheses=heard[:1]) is None
    assert one.rewrite("turn on", hypotheses=heard) == Rewriting("turn off", "global", 0.5, 7, 20.0, heard=True)
    assert one.rewrites()["turn on"].heard


def test_ones_own_comes_first() -> None:
    one = policy({"a": LEARNED}, {"ann": {"a": ("mine", 0.25)}})
    assert one.rewrite("a", user="ann") == Rewriting("mine", "personal", 0.25, 7)
    for user in ("bob", None):
        assert one.rewrite("a", user=user) == one.rewrite("a")
    assert one.rewrite("b", user="ann") is None


@pytest.mark.parametrize("blocked", [(ALL,), ("mine",), ("x", "mine")])
def test_what_is_blocked_is_not_served_to_anybody(blocked: tuple[str, ...]) -> None:
    one = policy({"a": RewriteRow(blocked=blocked)}, {"ann": {"a": ("mine", 0.25)}})
    assert one.rewrite("a", user="ann") is None
    assert one.rewrites() == {}


def test_a_withdrawn_rewrite_is_told_but_not_served() -> None:
    one = policy({"a": msgspec.structs.replace(LEARNED, withdrawn="harm")})
    assert one.rewrite("a") is None
    assert one.rewrites()["a"].withdrawn == "harm"


def test_a_share_of_sessions_is_held_out() -> None:
    pinned = RewriteRow(target="p", probability=1.0, pinned=True)
    one = policy({"a": LEARNED, "z": pinned}, {"ann": {"a": ("mine", 0.25)}}, share=0.2)
    out = 0
    for number in range(1000):
        session = f"session-{number}"
        held_out = is_held_out(session, 0.2)
        assert (one.rewrite("a", session=session) is None) == held_out
        assert (one.rewrite("a", user="ann", session=session) is None) == held_out
        assert one.rewrite("z", user="ann", session=session) == Rewriting("p", "pinned", 1.0, 7)
        out += held_out
    assert 150 < out < 250
    assert one.rewrite("a") is not None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_or_all_are_held_out(share: float) -> None:
    assert {is_held_out(f"s{number}", share) for number in range(500)} == {share == 1.0}


def test_readers_serve_online_rewrites_of_what_was_learned(store_url: str) -> None:
    config = Config(rephrases=RephraseConfig(online_odds=1.0, held_out=0.0))
    right, wrong = "play the songs of abba", "play the sungs of abba"
    with LocalPipeline(store_url, config, "test") as pipeline, closing(PolicyReader(store_url)) as reader:
        for text, offset, times in ((right, 0, 12), ("set an alarm", 100, 3), (wrong, 200, 3)):
            for number in range(offset, offset + times):
                ids: Any = {"session_id": f"s{number}", "query_id": f"q{number}"}
                asked = Query(event_id="q", ts=number * 1000, text=text, **ids)
                clicked = Click(event_id="c", ts=asked.ts + 10, entity_id="e", **ids)
                pipeline.feed([asked, clicked] if text != wrong else [asked])
        pipeline.finish()
        pipeline.commit()
        pipeline.publish()
        reader.refresh()
        found = reader.policy.rewrite(wrong)
        assert found is not None
        assert (found.target, found.layer) == (right, "online")
        assert found.odds >= 1.0
        assert reader.policy.rewrite(right) is None
        assert reader.policy.rewrite("x", interpretation=wrong) is None


def test_habits_are_served_to_their_user_until_the_user_is_forgotten(store_url: str) -> None:
    config = Config(rephrases=RephraseConfig(online_odds=4.0, held_out=0.0))
    right, wrong, ranking = TEXTS[0], "play the sxongs of abba", HabitRanking(config.rephrases)

    def layer(reader: PolicyReader, user: str | None) -> str | None:
        found = reader.policy.rewrite(wrong, user=user)
        assert found is None or found.target == right
        return found.layer if found else None

    with LocalPipeline(store_url, config, "test") as pipeline, closing(PolicyReader(store_url)) as reader:
        events = [turn(number, True, text=right, user="ann") for number in range(3)]
        events += [turn(number, True, text="set an alarm", user="bob") for number in range(3, 6)]
        learn(pipeline, [one for some in events for one in some])
        reader.refresh()
        assert layer(reader, "ann") != "habit"  # nobody's habits have told anything yet
        learn(pipeline, [one for number in range(6, 36) for one in said(f"p{number}", number)])
        reader.refresh()
        assert layer(reader, "ann") == "habit"
        assert layer(reader, "bob") != "habit"
        assert layer(reader, None) != "habit"
        with closing(PolicyReader(store_url, personal=False)) as impersonal:
            impersonal.refresh()
            assert layer(impersonal, "ann") != "habit"
        rows = contents(store_url, config)
        assert "ann" in {key[0] for key in rows["habitual_queries"]}
        assert ranking.key_of("ann") in {key[1] for key in rows["sampled_habits"]}
        assert forget_user(store_url, config, "ann") > 0
        rows = contents(store_url, config)
        assert "ann" not in {key[0] for key in rows["habitual_queries"]}
        assert ranking.key_of("ann") not in {key[1] for key in rows["sampled_habits"]}
        learn(pipeline, turn(40, True, text="set an alarm", user="bob"))
        reader.refresh()
        with closing(PolicyReader(store_url)) as new:
            for one in (reader, new):
                assert layer(one, "ann") != "habit"
