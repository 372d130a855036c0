"""The evidence on habits."""

import numpy as np

from backchannel.agents.rewrites.habitual import NAMES
from backchannel.ops.lab.rephrases.habits import gather_habits, judge_habits
from backchannel.ops.lab.rephrases.recordings import Heard, Meaning

_PLACES = ("paris", "london", "berlin", "madrid", "vienna", "oslo", "rome", "lisbon")


def heard() -> list[Heard]:
    """Return recordings of sentences of four intents, each once well, and once misheard and misunderstood."""
    found = []
    for number in range(160):
        verb, place = ("weather in", "trains to", "call a friend in", "news from")[number % 4], _PLACES[number % 8]
        sentence = f"{verb} {place} {'abcdefghijklmnopqrst'[number // 8]}{number}"
        meant: Meaning = (f"intent {number % 4}", (("place", place), ("number", str(number))))
        misunderstood: Meaning = ("other", (("place", place),))
        found.append(Heard(sentence, sentence, f"well {number}", meant, meant))
        found.append(Heard(f"{sentence}x", sentence, f"badly {number}", misunderstood, meant))
    return found


def test_habits_that_tell_what_was_meant_are_served_and_hardly_any_other() -> None:
    gathered, known = gather_habits(heard(), np.random.default_rng(1), alike=False)
    pairs = gathered.pairs
    assert pairs.numbers.shape == (len(known), len(NAMES))
    assert not (pairs.allowed & ~known).any()  # an opposite is neither served nor learned from
    assert len(gathered.sentences) == 320
    found = judge_habits(gathered, known, 2.0)
    *_, ranked = found.outcomes
    assert found.defects == 160
    assert 0 < found.reachable <= found.ceiling <= 1
    assert ranked.wins > 2 * ranked.losses
    unsure = judge_habits(gathered, known, 1_000.0).outcomes[-1]
    assert (unsure.wins, unsure.losses) == (0, 0)
