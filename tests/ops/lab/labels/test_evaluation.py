"""`lab labels`: copied interpretations on simulated sessions of real recordings."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from backchannel.ops.lab.labels.evaluation import evaluate
from backchannel.ops.lab.labels.sessions import People, recordings, sessions


def test_sentences_and_utterances_are_apart(public_log: Callable[[str], Path]) -> None:
    folder = public_log("slurp_pipeline").parent
    own, others = (recordings(folder, held_out=side) for side in (True, False))
    assert not {one.sentence for one in own} & {one.sentence for one in others}
    found = sessions(own[:200], People(1.0, 0.0), np.random.default_rng(0))
    queries = list(found.recordings.items())
    again = [
        (one, other)
        for (name, one), (after, other) in pairwise(queries)
        if name.partition("/")[0] == after.partition("/")[0] and one.sentence == other.sentence
    ]
    assert len(again) > 20
    assert all(one.utterance != other.utterance and not one.is_understood for one, other in again)


def test_what_is_exported_is_right_as_often_as_declared(public_log: Callable[[str], Path]) -> None:
    folder = public_log("slurp_pipeline").parent
    rng = np.random.default_rng(3)
    found = (recordings(folder, held_out=side)[:2000] for side in (True, False))
    own, others = (sessions(some, People(1.0, 0.0), rng) for some in found)
    report = evaluate(own, others, (0.9,), (500,), rng)
    quality = report.exported["0.9"][500]
    assert quality.precision is not None
    assert quality.precision.value >= 0.9
    assert quality.repaired_possible.low > 0.05
    assert report.always.precision is not None
    assert report.always.precision.high < 0.2
