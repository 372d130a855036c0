"""Where goals begin, as the package's weights tell."""

import numpy as np
import pytest

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.goals.starts import WIDTH, Starts, evidence
from backchannel.agents.goals.weights import WEIGHTS
from tests.support.turns import closed_turn, impression, query


def probability(text: str, following: str, outcome: str | None = None) -> float:
    turn = closed_turn(query(0, text), [impression(outcome=outcome)], next=query(5000, following))
    return float(Starts().probabilities(columns_of([turn]), np.arange(1))[0])


@pytest.mark.parametrize(
    ("text", "following", "begins"),
    [
        ("find an italian restaurant", "how about mexican", False),
        ("find an italian restaurant", "what is the phone number", False),
        ("set a timer for ten minutes", "turn off the lights in the kitchen", True),
        ("weather today", "add milk to my shopping list", True),
        ("play jazz", "", False),
    ],
)
def test_another_task_begins_a_goal_and_more_about_the_same_does_not(text: str, following: str, begins: bool) -> None:
    assert (probability(text, following) > 0.5) == begins


def test_what_the_system_did_last_counts() -> None:
    text, following = "book a table for two", "i need a bus to fresno"
    assert probability(text, following, "confirmed") < probability(text, following, "offered")


def test_turns_together_are_as_turns_alone() -> None:
    pairs = [("play jazz", "weather"), ("weather", "play jazz"), ("play jazz", "weather"), ("?!", "play jazz")]
    columns = columns_of([closed_turn(query(0, one), next=query(5000, other)) for one, other in pairs])
    together = Starts().probabilities(columns, np.arange(4))
    assert together.tolist() == [probability(one, other) for one, other in pairs]
    assert Starts().probabilities(columns, np.array([3, 0])).tolist() == together[[3, 0]].tolist()


def test_there_is_a_weight_for_each_slot() -> None:
    columns = columns_of([closed_turn(query(0, "a b"), next=query(1, "c " * 900))])
    lines, slots = evidence(columns, np.arange(1))
    assert not lines.any()
    assert len(np.unique(slots)) == len(slots)
    assert slots.max() < WIDTH == len(WEIGHTS)
