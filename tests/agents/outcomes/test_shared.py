"""What learners share of a batch."""

from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.shared import once
from tests.support.turns import closed_turn, judged, query


def test_work_is_done_once_for_each_batch_and_arguments() -> None:
    done: list[tuple[int, str]] = []

    @once
    def work(outcomes: Outcomes, name: str) -> list[str]:
        done.append((len(outcomes), name))
        return [name] * len(outcomes)

    @once
    def other(outcomes: Outcomes, name: str) -> int:
        return len(outcomes) + len(name)

    one, two = judged([closed_turn(query())]), judged([closed_turn(query())] * 2)
    assert [work(one, "a"), work(two, "a"), work(one, "b"), work(one, "a")] == [["a"], ["a", "a"], ["b"], ["a"]]
    assert done == [(1, "a"), (2, "a"), (1, "b")]
    assert other(one, "a") == 2
