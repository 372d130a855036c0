"""Labels that change, are repeated, or come late: which count."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.checks import learn, unlike
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures.learner import POINTS, FailureConfig, FailurePoints
from backchannel.agents.failures.sample import LabelSample
from backchannel.agents.goals.learner import LABELS, GoalConfig, Goals
from backchannel.agents.labelled.labels import labels_of, latest
from backchannel.agents.learner import Learner
from backchannel.schemas.events import Event
from backchannel.schemas.turn import Turn
from backchannel.streams.turns.assembler import TurnAssembler, TurnConfig
from tests.support.turns import label, query

LEARNERS = [FailurePoints(FailureConfig()), LabelSample(FailureConfig()), Goals(GoalConfig(), 60, ())]
TURN = structs.replace(query(0), event_id="a")
LATER = structs.replace(query(10**6, session_id="t"), event_id="b", query_id="later")
FIRST, CHANGED = label(at=1, failure_point="result", goal="missed"), label(at=2, failure_point="correct")


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_latest_label_by_a_labeller_counts_and_disagreement_is_kept(order: tuple[int, ...]) -> None:
    given = (
        label(at=1, failure_point="result"),
        label(at=2, failure_point="recognition"),
        label("joe", failure_point="correct"),
    )
    turns = [Turn.of(query(), []), Turn.of(query(), [given[place] for place in order])]
    rows, shares = labels_of(columns_of(turns), "failure_point", POINTS)
    assert rows.tolist() == [1]
    expected = {"recognition": 0.5, "correct": 0.5}
    assert dict(zip(POINTS, shares[0].tolist(), strict=True)) == dict.fromkeys(POINTS, 0.0) | expected


def test_a_label_changes_only_what_it_says() -> None:
    columns = columns_of([Turn.of(query(), [FIRST, CHANGED, label("joe")])])
    assert labels_of(columns, "failure_point", POINTS)[1].tolist() == [[1.0, *[0.0] * 6]]
    assert labels_of(columns, "goal", LABELS)[1].tolist() == [[0.0, 0.0, 1.0]]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from("xyz"))), st.randoms())
def test_order_and_repetition_do_not_matter(said: list[tuple[str, int, str]], rng: Any) -> None:
    again = rng.sample([*said, *said], 2 * len(said))
    assert sorted(latest(again)) == sorted(latest(said))
    assert len(latest(said)) == len({labeller for labeller, _, _ in said})


def assembled(*chunks: Sequence[Event]) -> tuple[list[Turn], TurnAssembler]:
    """The turns of a log that arrives in chunks, and their assembler."""
    assembler = TurnAssembler(["log"], TurnConfig(window_s=60, lateness_s=10))
    closed: list[Turn] = []
    for offset, chunk in enumerate(chunks):
        places = range(100 * offset, 100 * offset + len(chunk))
        assembler.add("log", list(places), chunk)
        closed += assembler.advance(())
    return [*closed, *assembler.finish()], assembler


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda one: one.name)
@pytest.mark.parametrize(
    "live",
    [
        ([TURN, FIRST, CHANGED], [LATER]),
        ([FIRST], [TURN], [CHANGED], [LATER]),  # a label that comes before its query waits for it
        ([CHANGED, TURN], [FIRST, CHANGED], [FIRST], [LATER]),  # each counts once, and the latest is not the last
    ],
)
def test_replay_gives_what_was_learned_live(learner: Learner, live: tuple[Sequence[Event], ...]) -> None:
    replayed = learn(learner, assembled([TURN, LATER, FIRST, CHANGED])[0])
    assert not unlike(learn(learner, assembled(*live)[0]), replayed, exact=True)
    silent = learn(learner, assembled([TURN, LATER])[0])
    assert unlike(silent, replayed, exact=True)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda one: one.name)
def test_a_label_that_comes_after_the_close_is_counted_and_learned_on_replay_only(learner: Learner) -> None:
    late = label("joe", at=3, failure_point="recognition", goal="reached")
    closed, assembler = assembled([TURN, FIRST], [LATER], [late])
    assert assembler.counts["late"] == 1
    live = learn(learner, closed)
    assert not unlike(live, learn(learner, assembled([TURN, FIRST, LATER])[0]), exact=True)
    assert unlike(live, learn(learner, assembled([TURN, LATER, FIRST, late])[0]), exact=True)
