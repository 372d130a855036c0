"""Erasure of a user: from the ledger, from every retained version, and from readers."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from msgspec import structs
from sqlalchemy import create_engine, inspect, select, text

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.bandit.users import TURNS
from backchannel.agents.failures.sample import LabelSample
from backchannel.agents.learner import hash_of
from backchannel.agents.memory.learner import MemoryConfig
from backchannel.agents.sketches import bucket
from backchannel.agents.sums import ALL
from backchannel.schemas.events import Label
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.signing import KEY_VARIABLE, signing_key
from backchannel.streams.snapshots.versions import CorruptPolicyError
from backchannel.streams.store.engine import Store, StoreError
from backchannel.streams.store.tables import segment
from tests.support.ledgers import assert_same, contents
from tests.support.pipelines import learn, turn

CONFIG = Config(bandit=BanditConfig(features=(Numeric(TURNS),)), memory=MemoryConfig(personal=10))


@pytest.fixture(params=["", "secret"])
def pipeline(
    request: pytest.FixtureRequest, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalPipeline]:
    """A pipeline that has learned from four turns of two users, in as many versions; without and with a signing key."""
    monkeypatch.setenv(KEY_VARIABLE, request.param)
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        for number in range(4):
            learn(pipeline, turn(number, True, user=f"user-{number % 2}"))
        yield pipeline


def test_ledger_and_all_versions_lose_the_user_and_nobody_else(pipeline: LocalPipeline, store_url: str) -> None:
    # A sum of the memory index, one of the rewrites, one of turns, and two versions of two rows of the policy.
    assert forget_user(store_url, CONFIG, "user-1") == 7
    left = contents(store_url, CONFIG)
    assert {user for user, _, _ in left["personal"]} == {"user-0"}
    assert {user for (user,) in left["users"]} == {ALL, "user-0"}
    engine = create_engine(store_url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT key FROM snapshot_row WHERE section IN ('personal', 'users')")).all()
    engine.dispose()
    assert {key for (key,) in rows} == {ALL, "user-0"}
    assert forget_user(store_url, CONFIG, "user-1") == 0


def test_every_retained_version_still_has_its_checksum_and_signature(pipeline: LocalPipeline, store_url: str) -> None:
    forget_user(store_url, CONFIG, "user-1")
    store, key = Store(store_url), signing_key()
    with store.read() as connection:
        versions = snapshots.versions(connection)
        assert len(versions) == 4
        for version in versions:
            header = snapshots.header(connection, version, key)
            assert header is not None
            assert snapshots.intact(connection, header, key)
    store.close()


def test_readers_new_and_old_know_the_user_no_more(pipeline: LocalPipeline, store_url: str) -> None:
    reader = PolicyReader(store_url)
    everybody = reader.policy.recall("jazz", 1)
    assert reader.policy.recall("jazz", 1, "user-1") != everybody
    assert reader.policy.of_user("user-1")[TURNS] == pytest.approx(1.585, abs=0.01)  # log2(1 + 2), hardly decayed
    forget_user(store_url, CONFIG, "user-1")
    fresh = PolicyReader(store_url)
    assert fresh.policy.recall("jazz", 1, "user-1") == everybody
    assert fresh.policy.of_user("user-1") == {TURNS: 0.0}
    fresh.close()
    learn(pipeline, turn(6, True, user="user-0"))
    assert reader.refresh()
    assert reader.status.error is None
    assert reader.policy.recall("jazz", 1, "user-1") == reader.policy.recall("jazz", 1)
    reader.close()


def test_learning_goes_on_and_may_meet_the_user_again(pipeline: LocalPipeline, store_url: str) -> None:
    forget_user(store_url, CONFIG, "user-1")
    learn(pipeline, turn(7, True, user="user-1"))
    assert {user for (user,) in contents(store_url, CONFIG)["users"]} == {ALL, "user-0", "user-1"}


def test_what_was_committed_but_not_merged_goes_too(pipeline: LocalPipeline, store_url: str) -> None:
    pipeline.feed([event for number in (7, 8) for event in turn(number, True, user=f"user-{number % 2}")])
    pipeline.finish()
    pipeline.commit()
    assert forget_user(store_url, CONFIG, "user-1") == 7
    with pipeline.store.read() as connection:
        assert not connection.execute(select(segment)).all()
    users = {user for (user,) in contents(store_url, CONFIG)["users"]}
    assert users == {ALL, "user-0"}
    pipeline.publish()  # the rest of what was merged
    reader = PolicyReader(store_url)
    assert reader.policy.of_user("user-1") == {TURNS: 0.0}
    assert reader.policy.of_user("user-0")[TURNS] == pytest.approx(2.0, abs=0.01)  # log2(1 + 3), hardly decayed
    reader.close()


def test_labelled_turns_of_the_user_go_and_those_of_others_stay(pipeline: LocalPipeline, store_url: str) -> None:
    for number in range(4):
        asked, *signals = turn(10 + number, True, user=f"user-{number % 2}")
        said = Label(
            event_id=f"label {number}",
            ts=asked.ts,
            session_id=asked.session_id,
            query_id=asked.query_id,
            labeller="eve",
            labelled_at=asked.ts,
            failure_point="correct",
        )
        learn(pipeline, [asked, *signals, said])
    forget_user(store_url, CONFIG, "user-1")
    kept = contents(store_url, CONFIG)[LabelSample.name]
    assert {key[2] for key in kept} == {hash_of(LabelSample.salt, "user-0")}


def test_deep_erasure_takes_the_texts_that_only_they_asked(pipeline: LocalPipeline, store_url: str) -> None:
    assert bucket("user-0") != bucket("user-1")
    for number, user in enumerate(("user-1", "user-1", "user-0"), start=20):
        learn(pipeline, turn(number, user == "user-0", text=f"secret {user[-1]}", user=user))
    assert forget_user(store_url, CONFIG, "user-1") > 0
    assert _mentions(store_url, "secret 1")
    assert forget_user(store_url, CONFIG, "user-1", deep=True) > 0
    assert not _mentions(store_url, "secret 1")
    assert _mentions(store_url, "secret 0")
    learn(pipeline, turn(30, True, user="user-0"))
    assert not _mentions(store_url, "secret 1")
    with closing(Store(store_url)) as store, store.read() as connection:
        key = signing_key()
        for version in snapshots.versions(connection):
            header = snapshots.header(connection, version, key)
            assert header is not None
            assert snapshots.intact(connection, header, key)
    with closing(PolicyReader(store_url)) as reader:
        assert set(reader.policy.memory()) == {"jazz", "secret 0"}


def test_deep_erasure_takes_what_they_said_after_another_user(pipeline: LocalPipeline, store_url: str) -> None:
    asked, *signals = turn(20, False, text="call doctor smith", user="user-0")
    again = structs.replace(
        turn(21, True, text="call doctor smyth", user="user-1")[0], session_id=asked.session_id, ts=asked.ts + 5000
    )
    learn(pipeline, [asked, *signals, again])
    assert _mentions(store_url, "call doctor smyth")
    forget_user(store_url, CONFIG, "user-1", deep=True)
    assert not _mentions(store_url, "call doctor smyth")
    assert _mentions(store_url, "call doctor smith")


def _mentions(url: str, said: str) -> bool:
    """Whether any table of a store has a text anywhere."""
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = inspect(engine).get_table_names()
        rows = [row for name in tables for row in connection.execute(text(f'SELECT * FROM "{name}"'))]
    engine.dispose()
    return any(said in repr(tuple(row)) for row in rows)


@pytest.mark.parametrize("nobody", [ALL, "user-2"])
def test_nothing_is_erased_of_everybody_or_of_a_stranger(pipeline: LocalPipeline, store_url: str, nobody: str) -> None:
    before = contents(store_url, CONFIG)
    assert forget_user(store_url, CONFIG, nobody) == 0
    assert_same(contents(store_url, CONFIG), before)


def test_without_the_publishers_key_nothing_is_erased(
    pipeline: LocalPipeline, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(store_url, CONFIG)
    monkeypatch.setenv(KEY_VARIABLE, "another")
    with pytest.raises(CorruptPolicyError):
        forget_user(store_url, CONFIG, "user-1")
    assert_same(contents(store_url, CONFIG), before)


def test_a_store_without_tables_is_an_error(store_url: str) -> None:
    with pytest.raises(StoreError):
        forget_user(store_url, CONFIG, "user-1")
