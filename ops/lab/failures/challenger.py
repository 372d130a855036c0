"""Gradient boosting on the evidence of failure points: shown beside the learner, and used nowhere.

It is no sum, so it would have to keep a sample of labelled turns, and learn it anew for each version.
"""

from importlib.util import find_spec
from typing import Final

import numpy as np

from backchannel.agents.failures.evidence import BINS
from backchannel.agents.sums import Floats, Integers

_ROUNDS: Final = 100


def is_there() -> bool:
    """Return whether LightGBM is installed; `make rivals` installs it."""
    return find_spec("lightgbm") is not None


def boosted(features: Floats, truth: Integers, own: Integers, tested: Integers, points: int) -> Floats:
    """Return the probabilities of failure points, (tested, points), by LightGBM with its defaults.

    Args:
        features: what `features_of` returns for all turns.
        truth: index of each turn's failure point, (turns,).
        own: indexes of the turns to learn from.
        tested: indexes of the turns to tell.
        points: the number of failure points.
    """
    import lightgbm  # noqa: PLC0415 - for comparison only

    settings = {"objective": "multiclass", "num_class": points, "verbosity": -1, "num_threads": 1, "seed": 1}
    model = lightgbm.train(settings, lightgbm.Dataset(features[own], truth[own]), _ROUNDS)
    return np.asarray(model.predict(features[tested]))


def features_of(vectors: Floats) -> Floats:
    """Return vectors with a column per number, its bin, or NaN if it is unknown: trees need no column per bin."""
    columns, start = [], 1
    for edges in BINS.values():
        size = len(edges) + 2
        places = vectors[:, start : start + size].argmax(axis=1)
        columns.append(np.where(places == 0, np.nan, places))
        start += size
    return np.column_stack((*columns, vectors[:, start:]))
