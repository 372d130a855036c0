"""The long horizon in a ledger: visits mature, old rows are dropped, and users are forgotten by their hash."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from backchannel.agents.horizon.learner import HorizonConfig
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from tests.support.ledgers import contents
from tests.support.pipelines import learn, turn

DAY = 86_400_000
CONFIG = Config(horizon=HorizonConfig(salt="a salt for tests only", days=2.0, half_life_days=1.0))


@pytest.fixture
def pipeline(store_url: str) -> Iterator[LocalPipeline]:
    """A pipeline that has learned from three users, one of whom came back, in a version per turn."""
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        for number, (user, day) in enumerate([("ann", 100), ("bob", 100), ("ann", 101), ("eve", 104)]):
            learn(pipeline, turn(number, True, ts=day * DAY + 600_000 * number, user=user))
        yield pipeline


def known(store_url: str) -> tuple[int, int, int]:
    """Return the people with mature visits, the visits, and the mature ones of the served version."""
    with closing(PolicyReader(store_url)) as reader:
        report = reader.policy.horizon.report
        assert report is not None
        return report.surrogate.people, report.surrogate.visits, report.surrogate.mature


def days(store_url: str) -> list[int]:
    """Return the days of all visits in the ledger."""
    return sorted(hour // DAY for _, hour, _ in contents(store_url, CONFIG)["visits"])


def test_visits_mature_in_a_ledger(pipeline: LocalPipeline, store_url: str) -> None:
    assert known(store_url) == (2, 4, 3)


def test_a_forgotten_user_is_found_by_the_hash_and_leaves_the_next_version(
    pipeline: LocalPipeline, store_url: str
) -> None:
    assert days(store_url) == [100, 100, 101, 104]
    assert forget_user(store_url, CONFIG, "ann") >= 2
    assert days(store_url) == [100, 104]
    assert forget_user(store_url, CONFIG, "ann") == 0
    learn(pipeline, turn(9, True, ts=104 * DAY + 3_000_000, user="eve"))
    assert known(store_url) == (1, 2, 1)


def test_old_visits_are_dropped_and_were_not_counted_before(pipeline: LocalPipeline, store_url: str) -> None:
    learn(pipeline, turn(9, True, ts=108 * DAY, user="eve"))
    assert days(store_url) == [101, 104, 108]
    assert known(store_url) == (2, 3, 2)
