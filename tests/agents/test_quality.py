"""The quality of answers over time: what each sum counts."""

from typing import Any

from backchannel.agents.outcomes import RewardConfig
from backchannel.agents.quality import EVERY, AnswerQuality, QualityConfig
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from tests.agents.turns import barge_in, click, impression, judged, query

QUALITY = AnswerQuality(QualityConfig(bucket_s=60), ("lexical", "semantic"))
SHOWN = impression(Result("e1", 1, ("lexical",)), Result("e2", 2, ("other",)), allocation={"lexical": 3, "other": 2})


def sums(turns: list[Turn], **rewards: Any) -> dict[tuple[str, int], dict[str, float]]:
    (found,) = QUALITY.learn(judged(turns, RewardConfig(**rewards))).values()
    return {
        key: {name: value for name, value in zip(found.table.sums, row, strict=True) if value}
        for key, row in zip(found.keys, found.values.tolist(), strict=True)
    }


def test_a_click_is_of_the_strategy_that_is_credited_with_it() -> None:
    turns = [Turn(query(59_999), (SHOWN,), (click("e1"),)), Turn(query(60_000), (SHOWN,), (click("e2"),))]
    turns.append(Turn(query(60_001), (SHOWN,)))
    assert sums(turns) == {
        (EVERY, 0): {"turns": 1, "candidates": 5, "clicked": 1, "reward": 1},
        ("lexical", 0): {"turns": 1, "candidates": 3, "clicked": 1, "reward": 1},
        (EVERY, 60_000): {"turns": 2, "candidates": 10, "clicked": 1, "reward": 1},
        ("lexical", 60_000): {"turns": 2, "candidates": 6},
    }


def test_a_barge_in_is_a_defect_and_a_rephrase_as_far_as_it_is_one() -> None:
    interrupted = Turn(query(), (), (click("e1"),), (barge_in(),))
    repeated = Turn(query(text="play some jass"), next=query(8_000, "play some jazz"))
    both = Turn(query(text="play jazz"), (), (), (barge_in(),), query(8_000, "play jazz"))
    (likely,) = judged([repeated])
    (likelier,) = judged([both])
    assert sums([interrupted], barge_in_weight=0.25) == {
        (EVERY, 0): {"turns": 1, "clicked": 1, "barged_in": 1, "defects": 1, "reward": 0.75}
    }
    assert 0 < likely.rephrased < 1
    assert sums([repeated])[EVERY, 0] == {"turns": 1, "rephrased": likely.rephrased, "defects": likely.rephrased}
    found = sums([both])[EVERY, 0]
    assert found == {"turns": 1, "barged_in": 1, "rephrased": likelier.rephrased, "defects": 1}


def test_no_turns_are_nothing_and_nobody_serves_it() -> None:
    assert QUALITY.learn([]) == {}
