"""Teaching, from the event to the store and to a reader: at once, exactly once, and erased with the user."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from backchannel.agents.bandit.features import Categorical, Numeric
from backchannel.agents.ranking.learner import RankingConfig
from backchannel.agents.ranking.serving import Candidate
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.taught.rules import EVERYONE, TaughtConfig, merged, owner_of, rule_of, user_owner
from backchannel.schemas.codec import EventDecoder, EventError, encode
from backchannel.schemas.events import (
    Click,
    Event,
    Impression,
    LikeAttribute,
    Means,
    Never,
    Prefer,
    Query,
    Result,
    Teach,
)
from backchannel.streams.config import Config
from backchannel.streams.pipeline.corrections import set_sums
from backchannel.streams.pipeline.erasure import forget_user
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots.signing import KEY_VARIABLE
from backchannel.streams.snapshots.teachings import DROPPED, Teachings, all_rules
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution, Ledger
from backchannel.streams.turns.accounts import Account
from backchannel.streams.turns.partition import Partition
from tests.support.ledgers import contents
from tests.support.pipelines import learn, turn

CONFIG = Config(taught=TaughtConfig(operators=("chief",), most=3))
START = 1_700_000_000_000


def teach(number: int, source: str, target: str, ts: int = START, user: str = "me", **fields: object) -> Teach:
    ids = {"event_id": f"t{number}", "session_id": f"s{number % 3}", "query_id": "q", "user_id": user}
    return Teach(ts=ts, rule=Means(source=source, target=target), **{**ids, **fields})  # type: ignore[arg-type]


def target(policy: Policy, source: str, user: str | None = "me") -> str | None:
    found = policy.rewrite(source, user=user)
    return found.target if found else None


def stored(url: str) -> dict[str, list[str]]:
    """Return the ids of the events whose rules are stored, by owner."""
    with closing(Store(url)) as store, store.read() as connection:
        return {owner: [one.event_id for one in rules] for owner, rules in all_rules(connection).items()}


def test_a_rule_is_served_in_the_next_interaction_and_undone_in_the_one_after(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline, closing(PolicyReader(store_url)) as reader:
        learn(pipeline, turn(1, True))
        version = reader.policy.version
        # Nothing is committed and no version is published after this.
        pipeline.feed([teach(1, "Mum", "call Mary Smith")])
        reader.refresh()
        found = reader.policy.rewrite("mum", user="me")
        assert found is not None
        assert (found.target, found.layer, found.policy_version) == ("call mary smith", "taught", version)
        assert target(reader.policy, "mum", "you") is None
        assert [one.event_id for one in reader.policy.taught("me")] == ["t1"]
        pipeline.feed([teach(2, "mum", "whatever", START + 1, undo=True)])
        reader.refresh()
        assert target(reader.policy, "mum") is None
        assert reader.policy.taught("me") == []
        # The next version has what was taught, too.
        pipeline.feed([teach(3, "dad", "call john", START + 2)])
        learn(pipeline, turn(2, True, ts=START + 3))
        reader.refresh()
        assert (reader.policy.version, target(reader.policy, "dad")) == (version + 1, "call john")


def test_every_event_is_accounted_for_and_only_operators_teach_everyone(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        everyone = teach(1, "a", "b", everyone=True)
        with pytest.raises(EventError, match="everyone: true is for operators; 'me' is not one"):
            pipeline.feed([everyone])
        records = list(map(encode, [everyone, teach(2, "a", "b", user="chief", everyone=True), teach(3, "c", "d")]))
        (dead,) = pipeline.feed_records([0, 1, 2], records)
        assert dead.reason.startswith("everyone: ")
        pipeline.commit()
    assert stored(store_url) == {EVERYONE: ["t2"], "user:me": ["t3"]}
    account = Account.of(contents(store_url, CONFIG)["counts"])
    assert (account.received, account.learned, account.dead_letters, account.unaccounted) == (3, 2, 1, 0)


def test_a_blocked_rewrite_cannot_be_taught(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline, closing(PolicyReader(store_url)) as reader:
        pipeline.feed([teach(1, "a", "b"), teach(2, "c", "d"), teach(3, "e", "e")])
        table = RephraseGraph(CONFIG.rephrases).rules
        set_sums(pipeline.store, pipeline.ledger, table, "blocked", {("a", "b"): 1.0}, source="rules")
        pipeline.publish()
        assert [target(reader.policy, source) for source in "ace"] == [None, "d", None]


def test_a_flood_is_bounded_counted_and_harms_nobody_else(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        pipeline.feed([teach(100, "mine", "stays", user="you")])
        pipeline.feed([teach(number, f"q{number}", "x", START + number) for number in range(50)])
        pipeline.commit()
        assert pipeline.ledger.counts()[DROPPED] == 47
    assert stored(store_url) == {"user:me": ["t49", "t48", "t47"], "user:you": ["t100"]}


events = st.lists(
    st.builds(
        teach,
        st.integers(0, 8),
        st.sampled_from("abcde"),
        st.sampled_from("xy"),
        ts=st.integers(START, START + 2),
        user=st.sampled_from(["me", "you"]),
        undo=st.booleans(),
    ),
    max_size=10,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events, st.data())
def test_partitions_kills_and_duplicates_give_the_same_rules(
    store_url: str, said: Sequence[Teach], data: st.DataObject
) -> None:
    """Two workers read a partition each, in chunks, commit now and then, and are killed now and then."""
    expected = {}
    for owner in {owner_of(one) for one in said}:
        mine = [rule_of(one) for one in said if owner_of(one) == owner]
        expected[owner] = list(merged((), mine, CONFIG.taught.most).values())
    logs = [[one for one in said if int(one.event_id[1:]) % 2 == number] for number in (0, 1)]
    logs[1] += data.draw(st.lists(st.sampled_from(said), max_size=5)) if said else []  # sent twice
    with closing(Store(store_url)) as store:
        store.create([])
        with store.write() as connection:
            for table in (tables.taught, tables.partition):
                connection.execute(delete(table))
        ledger, teachings = Ledger(store, []), Teachings(store, CONFIG.taught)
        workers: dict[int, Partition] = {}
        read = [0, 0]
        while any(read[number] < len(logs[number]) for number in (0, 1)):
            number = data.draw(st.integers(0, 1))
            if number not in workers:
                claim = ledger.claim("test", number)
                read[number] = claim.position.topic("teachings").resume
                workers[number] = Partition(claim, {"teachings": EventDecoder()}, CONFIG.turns)
            worker, begin = workers[number], read[number]
            chunk = logs[number][begin : begin + data.draw(st.integers(1, 3))]
            read[number] += len(chunk)
            assert worker.add("teachings", range(begin, read[number]), list(map(encode, chunk)), START) == []
            fate = data.draw(st.sampled_from(["goes on", "commits", "dies before", "dies after"]))
            if fate != "dies before" or read[number] == len(logs[number]):
                teachings.write(worker.take_taught())
            if fate == "commits":
                batch = worker.batch()
                (worker.claim,) = ledger.commit([Contribution(batch.claim, batch.position, {}, batch.counts)])
            elif fate.startswith("dies"):
                del workers[number]
                if read[number] < len(logs[number]):
                    read[number] = 0
        with store.read() as connection:
            assert all_rules(connection) == expected


def test_forgetting_a_user_deletes_their_rules_also_from_readers(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline, closing(PolicyReader(store_url)) as reader:
        learn(pipeline, turn(1, True))
        pipeline.feed([teach(1, "a", "b"), teach(2, "a", "b", user="you"), teach(3, "c", "b", START + 1)])
        reader.refresh()
        assert target(reader.policy, "a") == "b"
        assert forget_user(store_url, CONFIG, "me") == 2
        reader.refresh()
        assert (target(reader.policy, "a"), target(reader.policy, "a", "you")) == (None, "b")
        assert forget_user(store_url, CONFIG, "me") == 0
    assert stored(store_url) == {user_owner("you"): ["t2"]}


def test_rules_that_are_not_signed_with_the_key_are_not_served(
    store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Store(store_url)) as store:
        store.create([])
        Teachings(store, CONFIG.taught).write([teach(1, "a", "b", user="chief", everyone=True)])
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with LocalPipeline(store_url, CONFIG, "test") as pipeline, closing(PolicyReader(store_url)) as reader:
        learn(pipeline, turn(1, True))
        pipeline.feed([teach(2, "c", "d")])
        assert (target(reader.policy, "a"), target(reader.policy, "c")) == (None, "d")
        assert "the rules of everyone are not signed with the key" in caplog.text


def test_what_nobody_wants_is_neither_recalled_nor_ranked_and_what_is_preferred_comes_first(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline, closing(PolicyReader(store_url)) as reader:
        learn(pipeline, turn(1, True))  # `a` has worked for "jazz"
        assert [one.entity_id for one in reader.policy.recall("jazz", 5, "me")] == ["a"]
        ids = {"session_id": "s", "query_id": "q", "user_id": "me", "ts": START}
        pipeline.feed(
            [
                Teach(event_id="1", rule=Never(entity_id="a"), **ids),  # type: ignore[arg-type]
                Teach(event_id="2", rule=Prefer(entity_id="c", query="Jazz!"), **ids),  # type: ignore[arg-type]
            ]
        )
        reader.refresh()
        policy = reader.policy
        assert [(one.entity_id, one.taught) for one in policy.recall("jazz", 5, "me")] == [("c", True)]
        assert policy.recall("jazz", 0, "me") == []
        assert [one.entity_id for one in policy.recall("jazz", 5, "you")] == ["a"]
        candidates = [Candidate(name) for name in "abcd"]
        ranked = [policy.rank({}, candidates, k, query="jazz", user="me").results for k in (1, 2, 9)]
        assert [[one.entity_id for one in some] for some in ranked] == [["c"], ["c", "b"], ["c", "b", "d"]]
        assert [(one.position, one.taught) for one in ranked[1]] == [(1, True), (2, False)]
        assert [one.entity_id for one in policy.rank({}, candidates, 4, query="jazz").results] == list("abcd")


def test_a_liked_attribute_ranks_at_once_until_choices_overrule_it_and_the_user_is_forgotten(store_url: str) -> None:
    ranking = RankingConfig(
        features=(Numeric("score"), Categorical("cuisine", ("greek", "italian"))), personal=("cuisine",)
    )
    config, candidates = Config(ranking=ranking), [Candidate(name, {"cuisine": name}) for name in ("greek", "italian")]

    def first(reader: PolicyReader, user: str | None = "me") -> tuple[str, list[str]]:
        reader.refresh()
        best = reader.policy.rank({}, candidates, 2, user=user, explain=True).results[0]
        return best.entity_id, [str(one) for one in best.reasons if one.personal]

    def chosen(number: int, entity: str, user: str) -> list[Event]:
        ids: Any = {"session_id": f"s{number}", "query_id": f"q{number}", "ts": START + number * 1000}
        results = [Result(name, place, features={"cuisine": name}) for place, name in ((1, "greek"), (2, "italian"))]
        return [
            Query(event_id="q", text="dinner", user_id=user, **ids),
            Impression(event_id="i", results=tuple(results), **ids),
            Click(event_id="c", entity_id=entity, **ids),
        ]

    with LocalPipeline(store_url, config, "test") as pipeline, closing(PolicyReader(store_url)) as reader:
        learn(
            pipeline, [one for number in range(20) for one in chosen(number, ("greek", "italian")[number % 2], "you")]
        )
        rule = LikeAttribute(feature="cuisine", value="italian")
        ids: Any = {"session_id": "s", "query_id": "q", "user_id": "me", "ts": START}
        pipeline.feed([Teach(event_id="1", rule=rule, **ids)])
        best, reasons = first(reader)
        assert (best, reasons[0][:24]) == ("italian", "cuisine=italian raises i")
        assert first(reader, "you")[0] == first(reader, None)[0] == "greek"
        learn(pipeline, [one for number in range(20, 120) for one in chosen(number, "greek", "me")])
        assert first(reader)[0] == "greek"
        with closing(PolicyReader(store_url, personal=False)) as impersonal:
            assert first(impersonal) == ("greek", [])
        assert {user for user, _, _ in contents(store_url, config)["tastes"]} == {"", "me", "you"}
        assert forget_user(store_url, config, "me") > 0
        assert {user for user, _, _ in contents(store_url, config)["tastes"]} == {"", "you"}
        with closing(PolicyReader(store_url)) as anew:
            for one in (reader, anew):
                assert first(one) == ("greek", [])
        pipeline.feed([Teach(event_id="2", rule=rule, **{**ids, "ts": START + 1})])
        pipeline.feed([Teach(event_id="3", rule=rule, undo=True, **{**ids, "ts": START + 2})])
        assert first(reader) == ("greek", [])
