"""Which turns to label next."""

import numpy as np

from backchannel.agents.checks import learn
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures.evidence import evidence, vectors
from backchannel.agents.failures.selection import next_to_label
from tests.agents.failures.test_learner import LABELLED, LEARNER, diagnoser, fine, misheard


def test_doubtful_turns_come_first() -> None:
    known = diagnoser(learn(LEARNER, LABELLED)).known
    assert known is not None
    clear = vectors((one.values() for one in evidence(columns_of([fine(1), misheard(1)]))), 2)
    doubtful = clear.mean(axis=0)
    found = next_to_label(known[1], np.vstack((clear, doubtful)), 2, np.random.default_rng(1))
    assert found[0] == 2
    assert len(found) == 2


def test_without_a_model_turns_are_drawn_at_random() -> None:
    first, again, other = (
        next_to_label(None, np.zeros((50, 3)), 10, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(set(first.tolist())) == 10
