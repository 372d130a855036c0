"""The quality of answers over time: what each sum counts."""

import numpy as np
from msgspec import structs

from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.quality.learner import AnswerQuality, QualityConfig
from backchannel.agents.sums import ALL
from backchannel.schemas.events import Result
from tests.support.turns import barge_in, click, closed_turn, impression, judged, query

QUALITY = AnswerQuality(QualityConfig(bucket_s=60), ("lexical", "semantic"))
SHOWN = impression(Result("e1", 1, ("lexical",)), Result("e2", 2, ("other",)), allocation={"lexical": 3, "other": 2})


def sums(outcomes: Outcomes) -> dict[tuple[str, int], dict[str, float]]:
    (found,) = QUALITY.learn(outcomes).values()
    return {
        key: {name: value for name, value in zip(found.table.sums, row, strict=True) if value}
        for key, row in zip(found.keys, found.values.tolist(), strict=True)
    }


def test_a_click_is_of_the_strategy_that_is_credited_with_it() -> None:
    turns = [closed_turn(query(59_999), (SHOWN,), (click("e1"),)), closed_turn(query(60_000), (SHOWN,), (click("e2"),))]
    turns.append(closed_turn(query(60_001), (SHOWN,)))
    assert sums(judged(turns)) == {
        (ALL, 0): {"turns": 1, "candidates": 5, "clicked": 1, "reward": 1},
        ("lexical", 0): {"turns": 1, "candidates": 3, "clicked": 1, "reward": 1},
        (ALL, 60_000): {"turns": 2, "candidates": 10, "clicked": 1, "reward": 1},
        ("lexical", 60_000): {"turns": 2, "candidates": 6},
    }


def test_a_barge_in_is_a_defect_and_a_rephrase_as_far_as_it_is_one() -> None:
    interrupted = judged([closed_turn(query(), (), (click("e1"),), (barge_in(),))], RewardConfig(barge_in_weight=0.25))
    again = np.array([0.75])
    repeated = structs.replace(judged([closed_turn(query())]), rephrased=again)
    both = structs.replace(interrupted, success=np.zeros(1), rephrased=again)
    assert sums(interrupted) == {(ALL, 0): {"turns": 1, "clicked": 1, "barged_in": 1, "defects": 1, "reward": 0.75}}
    assert sums(repeated) == {(ALL, 0): {"turns": 1, "rephrased": 0.75, "defects": 0.75}}
    assert sums(both)[ALL, 0] == {"turns": 1, "clicked": 1, "barged_in": 1, "rephrased": 0.75, "defects": 1}


def test_no_turns_are_nothing_and_nobody_serves_it() -> None:
    assert QUALITY.learn(judged([])) == {}
