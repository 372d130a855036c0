"""The rankers in a store are kept from version to version, whoever publishes; that of habits is erased with people."""

from collections.abc import Callable
from contextlib import closing

from sqlalchemy import select

from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.habit_ranking import HabitRanking
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.sums import ALL
from backchannel.schemas.events import Event
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store.engine import Store
from backchannel.streams.store.tables import snapshot_row
from tests.support.habits import said
from tests.support.pipelines import learn

CONFIG = Config(rephrases=RephraseConfig(online_odds=4.0))
PEOPLE = 30
Row = tuple[int, int | None, str, bytes]


def rows(url: str, section: str = HabitRanking.name) -> list[Row]:
    """Return the rows of a section in all retained versions."""
    row = snapshot_row
    query = select(row.c.valid_from, row.c.valid_to, row.c.key, row.c.value)
    with closing(Store(url)) as store, store.read() as connection:
        for version in snapshots.versions(connection):
            header = snapshots.header(connection, version)
            assert header is not None
            assert snapshots.intact(connection, header)
        found = connection.execute(query.where(row.c.section == section).order_by(row.c.valid_from, row.c.key))
        return [(begun, ended, key, value) for begun, ended, key, value in found]


def live(url: str) -> dict[str, bytes]:
    return {key: value for _, ended, key, value in rows(url) if ended is None}


def events(first: int, last: int) -> list[Event]:
    return [event for number in range(first, last) for event in said(f"p{number}", number)]


def learned(url: str, section: str = HabitRanking.name, *, restarting: bool = False) -> list[Row]:
    """Learn from people, the last four in a version each, and return the rows of a section.

    There is a new publisher for each version if `restarting`.
    """
    with LocalPipeline(url, CONFIG, "test") as pipeline:
        learn(pipeline, events(0, PEOPLE - 4))
        for number in range(PEOPLE - 4, PEOPLE):
            if not restarting:
                learn(pipeline, events(number, number + 1))
                continue
            with LocalPipeline(url, CONFIG, "test") as another:
                learn(another, events(number, number + 1))
    return rows(url, section)


def test_whoever_publishes_keeps_the_same_fits(new_store: Callable[[], str]) -> None:
    found = learned(new_store())
    assert [begun for begun, _, key, _ in found if key != ALL] == [1, 3, 5]  # with 26, 28 and 30 people
    assert learned(new_store(), restarting=True) == found


def test_whoever_publishes_keeps_the_same_ranker_of_everybody(new_store: Callable[[], str]) -> None:
    found = learned(new_store(), RephraseGraph.name)
    assert [begun for begun, _, key, _ in found if key == ALL] == [1, 3, 5]  # with 26, 28 and 30 people
    assert learned(new_store(), RephraseGraph.name, restarting=True) == found


def test_another_configuration_fits_anew(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        learn(pipeline, events(0, PEOPLE))
    assert ALL in live(store_url)
    with LocalPipeline(store_url, Config(rephrases=RephraseConfig(online_odds=1000.0)), "test") as pipeline:
        pipeline.publish()
    assert ALL not in live(store_url)


def test_a_fit_does_not_survive_any_of_its_people(new_store: Callable[[], str]) -> None:
    url, other = new_store(), new_store()
    learned(url)
    assert ALL in live(url)
    assert forget_user(url, CONFIG, "p4") > 0
    assert rows(url) == []  # in no version
    again = said("p4", PEOPLE)  # other rows, and most of the sample stays
    with LocalPipeline(url, CONFIG, "test") as pipeline:
        learn(pipeline, again)
    with LocalPipeline(other, CONFIG, "test") as pipeline:
        learn(pipeline, [*events(0, 4), *events(5, PEOPLE), *again])
    assert live(url) == live(other)


def test_a_fit_is_made_again_without_news_once_anybody_was_forgotten(store_url: str) -> None:
    with LocalPipeline(store_url, CONFIG, "test") as pipeline:
        learn(pipeline, events(0, PEOPLE))
        fit = live(store_url)
        forget_user(store_url, CONFIG, "somebody whose rows were displaced")
        assert rows(store_url) == []
        pipeline.publish()
    assert live(store_url) == fit
